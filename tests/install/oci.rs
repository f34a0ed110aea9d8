//! The container image: laid out as the OCI says, the same each time, and it runs.

use crate::program::Folder;
use crate::system::changed_by;
use crate::{done, script};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An archive, and the folder it is unpacked in.
fn archive() -> (Folder, PathBuf) {
    let folder = Folder::new("oci");
    let archive = folder.path().join("image.tar");
    done(script("make-oci").args(["--built", "-o"]).arg(&archive));
    let image = folder.path().join("image");
    fs::create_dir(&image).unwrap();
    done(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&image));
    (folder, image)
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold("sha256:".to_string(), |text, byte| format!("{text}{byte:02x}"))
}

/// What a descriptor names, which has to be what it says.
fn blob(image: &Path, descriptor: &Value, kind: &str) -> Vec<u8> {
    assert_eq!(descriptor["mediaType"], kind, "{descriptor}");
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = fs::read(image.join("blobs").join(digest.replace(':', "/"))).unwrap();
    assert_eq!(descriptor["size"], bytes.len(), "{descriptor}");
    assert_eq!(sha256(&bytes), digest);
    bytes
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn gunzip(path: &Path) -> Vec<u8> {
    let mut child =
        Command::new("gunzip").arg("-c").arg(path).stdout(Stdio::piped()).spawn().unwrap();
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    bytes
}

#[test]
fn every_digest_is_that_of_what_it_names() {
    let (_folder, image) = archive();
    assert_eq!(json(&fs::read(image.join("oci-layout")).unwrap())["imageLayoutVersion"], "1.0.0");
    let front = json(&fs::read(image.join("index.json")).unwrap());
    assert_eq!((&front["schemaVersion"], &front["mediaType"]), (&Value::from(2), &INDEX.into()));
    let [index] = &front["manifests"].as_array().unwrap()[..] else { panic!("{front}") };
    let name = concat!("perennial:", env!("CARGO_PKG_VERSION"));
    assert_eq!(index["annotations"]["org.opencontainers.image.ref.name"], name);
    let index = json(&blob(&image, index, INDEX));
    let mut named = 1;
    let mut architectures = Vec::new();
    for descriptor in index["manifests"].as_array().unwrap() {
        let manifest = json(&blob(&image, descriptor, MANIFEST));
        assert_eq!(manifest["mediaType"], MANIFEST);
        let config = json(&blob(&image, &manifest["config"], CONFIG));
        for key in ["os", "architecture", "variant"] {
            assert_eq!(config[key], descriptor["platform"][key], "{key}");
        }
        let [layer] = &manifest["layers"].as_array().unwrap()[..] else { panic!("{manifest}") };
        blob(&image, layer, LAYER);
        let digest = layer["digest"].as_str().unwrap().replace(':', "/");
        let tar = gunzip(&image.join("blobs").join(digest));
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([sha256(&tar)]));
        let run = &config["config"];
        assert_eq!(run["Entrypoint"], serde_json::json!(["/usr/bin/perennial", "run"]));
        assert_eq!(run["Volumes"], serde_json::json!({"/share": {}, "/state": {}}));
        let ports = serde_json::json!({"6881/tcp": {}, "6881/udp": {}, "8080/tcp": {}});
        assert_eq!(run["ExposedPorts"], ports);
        architectures.push(config["architecture"].as_str().unwrap().to_string());
        named += 3;
    }
    assert_eq!(architectures, ["amd64", "arm64"]);
    let blobs = fs::read_dir(image.join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, named, "nothing lies there that nobody names");
}

#[test]
fn two_archives_are_the_same_bytes() {
    let ((one, _), (two, _)) = (archive(), archive());
    let read = |folder: &Folder| fs::read(folder.path().join("image.tar")).unwrap();
    assert!(read(&one) == read(&two));
}

/// As a container engine would run it: what is in the image and nothing else, as its user.
#[test]
fn what_lies_in_share_is_shared() {
    let (_folder, image) = archive();
    let front = json(&fs::read(image.join("index.json")).unwrap());
    let index = json(&blob(&image, &front["manifests"][0], INDEX));
    let manifest = json(&blob(&image, &index["manifests"][0], MANIFEST));
    let config = json(&blob(&image, &manifest["config"], CONFIG));
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let said = changed_by(&format!(
        r#"
        mkdir /container
        tar -C /container -xzf {layer}
        echo film >/container/share/film
        run="env -i $(command -v chroot) --userspec={user}:{user} /container /usr/bin/perennial"
        $run run 2>/dev/null &
        box=$!
        for i in $(seq 100); do
            $run list 2>/dev/null | grep -q film && break
            sleep 0.1
        done
        $run list
        $run stop
        wait $box
        stat -c %u /container/state/journal
        "#,
        layer = image.join("blobs").join(layer).display(),
        user = config["config"]["User"].as_str().unwrap().split(':').next().unwrap(),
    ));
    assert!(said.contains("film") && said.ends_with("65534\n"), "{said}");
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
