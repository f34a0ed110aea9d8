//! The page in a real browser: what its owner and visitors do, on a phone and on a desk.
//!
//! For whoever changes a page, the style sheet or the script. Each test starts a box of its own with
//! a page on 127.0.0.1, and has a scene of `page.js` played against it by Debian's chromium. Whatever
//! the scene is about, it fails when the browser complains, when something breaks the page's own
//! content security policy, and when anything is asked of another host.
//!
//! Needs chromium, nodejs (18 or later), npm and ffmpeg. The two libraries of `package.json` are
//! fetched into `target/browser` when they are not there yet. With `PERENNIAL_PICTURES=FOLDER` a
//! picture of each page, width and colour scheme is left there, to be looked at.
//!
//! ```text
//! Stage (a box, things to share) -> node page.js SCENE -> chromium -> the box
//! ```

#![cfg(feature = "std")]

#[path = "../support/program.rs"]
mod program;

use program::{Call, Folder, Program};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

#[test]
fn a_box_is_claimed_by_its_secret_and_guesses_are_slowed() {
    Stage::new("claim").play("claim", json!({}));
}

#[test]
fn a_box_is_claimed_by_its_link() {
    Stage::new("link").play("link", json!({}));
}

#[test]
fn a_file_that_is_chosen_or_dropped_becomes_a_share() {
    let stage = Stage::new("drop");
    let file = stage.home.write("chosen/Letter to the neighbours.txt", &[b'a'; 70_000]);
    stage.play("drop", json!({ "file": file }));
}

#[test]
fn a_film_plays_and_is_sought_in_while_it_is_fetched() {
    let (stage, source) = (Stage::new("film"), Folder::new("film-source"));
    let up = ["--up", "250kB/s", "--cap-lan"];
    let source = Call::share(&source, &[film()]).with(&up).start();
    let link = format!("{}&x.pe={}", source.shares[0].magnet, source.address);
    stage.play("film", json!({ "link": link }));
}

#[test]
fn shares_are_found_paused_resumed_and_removed() {
    let stage = Stage::with_shares("list");
    stage.play("list", json!({}));
    let left = |name: &str| stage.home.path().join("shared").join(name).exists();
    assert!(left("Notes.txt"), "what is removed without its files stays on the disk");
}

#[test]
fn figures_are_live() {
    let (stage, home) = (Stage::with_shares("live"), Folder::new("live-friend"));
    let share = stage.program.wait_for_share(FILM_NAME);
    let link = format!("{}&x.pe={}", share.magnet, stage.listens_at);
    let down = ["--down", "150kB/s", "--cap-lan"];
    let friend = Call::get(&home, &[Path::new(&link)]).with(&down).launch();
    stage.play("live", json!({ "friend": friend.id() }));
}

#[test]
fn pages_fit_and_can_be_read_by_everybody() {
    Stage::with_shares("looks").play("looks", json!({}));
}

#[test]
fn it_works_by_keyboard() {
    Stage::with_shares("keyboard").play("keyboard", json!({}));
}

#[test]
fn it_works_without_scripts() {
    Stage::with_shares("plain").play("plain", json!({ "link": NOBODYS }));
}

#[test]
#[ignore = "makes the picture of the README: scripts/screenshot"]
fn the_picture_of_the_readme() {
    let stage = Stage::new("picture");
    let of_zeros = |path: PathBuf, bytes: u64| {
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    };
    for (name, bytes) in [
        ("Grandmother's letters 1951-1964.pdf", 48_234_496),
        ("Sita Sings the Blues (2008).webm", 181_681_664),
        ("Street map of the Alps.pbf", 312_294_400),
        ("Village choir, Christmas concert.flac", 91_504_128),
    ] {
        let arrives = of_zeros(stage.home.path().join("arrives"), bytes);
        fs::rename(arrives, stage.shared(name)).unwrap();
        stage.program.wait_for_share(name);
    }
    let homes = [1, 2, 3, 4].map(|number| Folder::new(&format!("picture-{number}")));
    let [far, friends @ ..] = &homes;
    let lectures = of_zeros(far.path().join("Botany for beginners, lectures 1-12"), 134_003_200);
    let up = ["--up", "700kB/s", "--cap-lan"];
    let far = Call::share(far, &[&lectures]).with(&up).start();
    let link = format!("{}&x.pe={}", far.shares[0].magnet, far.address);
    stage.program.ask(&["add", &link]);
    let share = stage.program.wait_for_share("Sita Sings the Blues (2008).webm");
    let link = format!("{}&x.pe={}", share.magnet, stage.listens_at);
    let _friends = friends.each_ref().map(|home| {
        let down = ["--down", "1MB/s", "--cap-lan"];
        Call::get(home, &[Path::new(&link)]).with(&down).launch()
    });
    let (seen, into) = (stage.home.path().join("seen.png"), here("page.png"));
    stage.play("picture", json!({ "into": seen }));
    // With 256 colours it is half as large.
    let few = "split[a][b];[a]palettegen[few];[b][few]paletteuse=dither=none";
    let seen = seen.to_str().expect("cargo's place for tests has a name in UTF-8");
    ffmpeg(&["-i", seen, "-filter_complex", few], &into);
    let bytes = fs::metadata(&into).unwrap().len();
    assert!(bytes < PICTURE_BYTES_MAX, "{}: {bytes} bytes", into.display());
}

/// A box with a page, which looks after the folder `shared`.
struct Stage {
    program: Program,
    /// Its first page.
    page: String,
    secret: String,
    /// Where peers find it.
    listens_at: String,
    home: Folder,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let home = Folder::new(&format!("browser-{name}"));
        let [shared, fetched] = ["shared", "fetched"].map(|name| home.path().join(name));
        fs::create_dir_all(&shared).unwrap();
        fs::create_dir_all(&fetched).unwrap();
        let config = format!(
            "name = \"attic\"\n[network]\ndht = \"off\"\nmap-port = false\n\
             [fetch]\nreserve = \"1MB\"\ninto = \"{}\"\n[[share]]\nfolder = \"{}\"\n",
            fetched.display(),
            shared.display()
        );
        let program = Call::run_box(&home, &config).with_page().launch();
        let events = program.events_until("ready");
        let told = events.iter().find(|event| event["event"] == "page").expect("it has a page");
        let text = |value: &Value| value.as_str().expect("a text").to_string();
        let (page, secret) = (text(&told["pages"][0]), text(&told["secret"]));
        let listens_at = text(&events.last().expect("it is ready")["listen"][0]);
        Stage { program, page, secret, listens_at, home }
    }

    /// The same with a share of every kind and in every state.
    fn with_shares(name: &str) -> Stage {
        let stage = Stage::new(name);
        let film_copy = stage.home.path().join("copy.webm");
        fs::copy(film(), &film_copy).unwrap();
        fs::rename(film_copy, stage.shared(FILM_NAME)).unwrap();
        for number in 1..=3 {
            let name = format!("shared/Holiday/Day {number}/{LONG_NAME}.txt");
            stage.home.write(name, &vec![number; 40_000]);
        }
        stage.home.write("shared/Notes.txt", &[b'n'; 1_000]);
        stage.home.write("shared/Paused.bin", &[b'p'; 1_000]);
        for name in [FILM_NAME, "Holiday", "Notes.txt", "Paused.bin"] {
            stage.program.wait_for_share(name);
        }
        stage.program.ask(&["pause", "Paused.bin"]);
        stage.program.ask(&["add", NOBODYS]);
        stage
    }

    /// Where an entry of its folder lies.
    fn shared(&self, name: &str) -> PathBuf {
        self.home.path().join("shared").join(name)
    }

    /// Has a scene played in a browser.
    fn play(&self, scene: &str, more: Value) {
        let told = json!({ "page": self.page, "secret": self.secret, "more": more });
        let mut node = Command::new("node");
        node.arg(here("page.js")).args([scene, &told.to_string()]);
        node.env("NODE_PATH", libraries().join("node_modules"));
        let output = run(&mut node, "nodejs");
        let [said, complained] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        assert!(output.status.success(), "the scene `{scene}`:\n{said}{complained}");
    }
}

/// A minute of film that takes longer to fetch than to seek in: four seconds that ffmpeg paints, over
/// and over.
fn film() -> &'static Path {
    static FILM: OnceLock<PathBuf> = OnceLock::new();
    FILM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let [scene, film] = ["Scene.webm", FILM_NAME].map(|name| folder.join(name));
        let painted = "testsrc2=duration=4:size=320x180:rate=10,noise=alls=30:allf=t";
        let quickly = ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "10"];
        let many_bytes = ["-b:v", "700k"];
        ffmpeg(&[&["-f", "lavfi", "-i", painted], &quickly[..], &many_bytes].concat(), &scene);
        let from = scene.to_str().expect("cargo's place for tests has a name in UTF-8");
        ffmpeg(&["-stream_loop", "14", "-i", from, "-c", "copy"], &film);
        film
    })
}

fn ffmpeg(arguments: &[&str], into: &Path) {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-loglevel", "error", "-y"]).args(arguments).arg(into);
    let output = run(&mut ffmpeg, "ffmpeg");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", into.display());
}

/// The folder with the libraries of `package.json`, fetched if they are not there.
fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("browser");
        let (wanted, lock) = (here("package-lock.json"), folder.join("package-lock.json"));
        let is_there = fs::read(&lock).ok() == fs::read(&wanted).ok()
            && folder.join("node_modules/playwright-core").exists();
        if !is_there {
            fs::create_dir_all(&folder).unwrap();
            let _ = fs::remove_file(&lock);
            fs::copy(here("package.json"), folder.join("package.json")).unwrap();
            fs::copy(&wanted, &lock).unwrap();
            let mut npm = Command::new("npm");
            npm.args(["ci", "--no-audit", "--no-fund", "--prefix"]).arg(&folder);
            let output = run(&mut npm, "npm");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "npm ci: {said}");
        }
        folder
    })
}

fn run(command: &mut Command, package: &str) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; apt install {package}"))
}

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(name)
}

/// A link that nobody answers.
const NOBODYS: &str =
    "magnet:?xt=urn:btih:00112233445566778899aabbccddeeff00112233&dn=Nobody%20has%20this";

/// What the film is called.
const FILM_NAME: &str = "Garden in spring.webm";

/// Nothing in it can be broken at a space.
const LONG_NAME: &str = "A_name_as_cameras_and_archives_give_them_which_is_long_and_has_no_spaces";

/// The README is to be there at once, over any line.
const PICTURE_BYTES_MAX: u64 = 150_000;
