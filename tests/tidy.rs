//! The tree keeps to its own rules: who imports whom, what the engine may use, how long a file is.
//!
//! The order inside `src/engine` is read from the picture in its `mod.rs`, so that the picture
//! cannot lie. Tests inside a file are left out: they may use what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file of Rust under `src`.
struct Source {
    /// Its path below the repository.
    path: String,
    /// Its place in the tree of modules, `["engine", "wire", "frame"]`.
    module: Vec<String>,
    /// All of it.
    text: String,
    /// It without its tests, comments and strings.
    code: String,
}

impl Source {
    fn read(path: &Path) -> Source {
        let shown = path.strip_prefix(root()).expect("it lies in the repository");
        let below = shown.strip_prefix("src").expect("it lies in src").with_extension("");
        let mut module: Vec<String> =
            below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
            module.pop();
        }
        let text = fs::read_to_string(path).expect("a source file is text");
        let code = code_of(&text);
        Source { path: shown.display().to_string(), module, text, code }
    }

    /// `engine`, `service`, ...; `main` and the front page belong to none.
    fn layer(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    /// A file of tests only, included by its parent under `#[cfg(test)]`.
    fn is_tests(&self) -> bool {
        self.module.last().is_some_and(|last| last == "tests")
    }

    /// Modules it names by a path, each from the top of the tree down.
    fn imports(&self) -> BTreeSet<Vec<String>> {
        let mut found = BTreeSet::new();
        let code = self.code.split_whitespace().collect::<String>();
        for (start, base) in [("crate::", Vec::new()), ("super::", self.parent())] {
            for (at, _) in code.match_indices(start) {
                let before = code[..at].chars().next_back();
                // A later `super::` of the same path, or the end of another word.
                if before.is_some_and(|char| char == ':' || char.is_alphanumeric() || char == '_') {
                    continue;
                }
                let (mut base, mut rest) = (base.clone(), &code[at + start.len()..]);
                while let Some(more) = rest.strip_prefix("super::") {
                    base.pop();
                    rest = more;
                }
                found.extend(names(rest).map(|name| [&base[..], &name].concat()));
            }
        }
        found
    }

    fn parent(&self) -> Vec<String> {
        self.module[..self.module.len().saturating_sub(1)].to_vec()
    }
}

/// The first two names of every path that `text` begins with: one, or those of a group.
fn names(text: &str) -> impl Iterator<Item = Vec<String>> {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for char in text.chars() {
        match char {
            '{' => depth += 1,
            '}' if depth <= 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => parts.push(String::new()),
            _ if depth <= 1 && (char.is_alphanumeric() || "_:".contains(char)) => {
                parts.last_mut().expect("it is never empty").push(char);
            }
            _ if depth == 0 => break,
            _ => {}
        }
    }
    parts.into_iter().map(|part| part.split("::").take(2).map(str::to_string).collect())
}

#[test]
fn imports_go_one_way() {
    // Each layer and what it may name; `main` may name all of them. The firmware stands beside the
    // service, PID 1 beside the page: nobody names them, and they name what is below.
    let order = ["engine", "service", "find", "web"];
    for source in sources() {
        for import in source.imports().into_iter().filter(|import| source.layer() != import[0]) {
            let (from, to) = (source.layer(), import[0].as_str());
            let is_above = |from_layer: usize| order[from_layer..].contains(&to);
            let beside = ["firmware", "init"].contains(&to)
                || from == "firmware" && is_above(1)
                || from == "init" && is_above(2);
            assert!(!beside, "{}: {}", source.path, import.join("::"));
        }
    }
    for source in sources() {
        let Some(own) = order.iter().position(|layer| *layer == source.layer()) else { continue };
        for import in source.imports() {
            let layer = import.first().map_or("", String::as_str);
            let at = order.iter().position(|layer_of| *layer_of == layer);
            assert!(at.is_none_or(|at| at <= own), "{}: {}", source.path, import.join("::"));
            assert_ne!(layer, "main", "{}", source.path);
        }
    }
}

#[test]
fn modules_of_the_engine_import_in_the_order_of_their_picture() {
    let all = sources();
    let front = all.iter().find(|source| source.path == "src/engine/mod.rs");
    let front = &front.expect("the engine has a front page").text;
    // For each module the rows and columns it stands in.
    let mut places: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for (row, line) in front.lines().filter(|line| line.contains(" <- ")).enumerate() {
        let line = line.trim_start_matches("//!");
        for (column, group) in line.split("<-").enumerate() {
            for module in group.split_whitespace() {
                places.entry(module).or_default().push((row, column));
            }
        }
    }
    let modules: BTreeSet<&str> = fs::read_dir(root().join("src/engine"))
        .expect("the engine is a folder")
        .map(|entry| entry.expect("a folder can be read").file_name())
        .map(|name| name.to_string_lossy().trim_end_matches(".rs").to_string().leak() as &str)
        .filter(|name| *name != "mod")
        .collect();
    let shown: BTreeSet<&str> = places.keys().copied().collect();
    assert_eq!(shown, modules, "the picture shows every module");
    let is_left_of = |module: &str, other: &str| {
        let places_of = |module| places.get(module).into_iter().flatten();
        places_of(module)
            .any(|(row, at)| places_of(other).any(|(there, to)| row == there && at < to))
    };
    // A row's first column may stand for what is left of it in another row.
    let may = |from: &str, to: &str| {
        is_left_of(to, from)
            || modules.iter().any(|step| is_left_of(to, step) && is_left_of(step, from))
    };
    for source in all.iter().filter(|source| source.layer() == "engine" && !source.is_tests()) {
        let Some(own) = source.module.get(1) else { continue };
        for import in source.imports().iter().filter(|import| import[0] == "engine") {
            let Some(other) = import.get(1).filter(|name| modules.contains(name.as_str())) else {
                continue;
            };
            assert!(own == other || may(own, other), "{}: imports {other}", source.path);
        }
    }
}

#[test]
fn the_engine_needs_no_std_and_no_allocator() {
    for source in sources().iter().filter(|source| source.layer() == "engine") {
        if source.is_tests() {
            continue;
        }
        // Without these two no `Vec`, `String` or `Box` can be named.
        for word in ["std", "alloc", "unsafe"] {
            for (line, text) in source.code.lines().enumerate() {
                assert!(!has_word(text, word), "{}:{}: {word}", source.path, line + 1);
            }
        }
    }
}

#[test]
fn one_file_may_say_unsafe() {
    for source in sources() {
        let may = source.path == "src/service/sys.rs";
        let says = source.code.contains("unsafe {") || source.code.contains("unsafe fn");
        assert!(may || !says, "{}", source.path);
    }
}

#[test]
fn every_module_says_what_it_is() {
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! ") && first.len() > 12, "{}: {first}", source.path);
    }
}

#[test]
fn nothing_grows_without_a_limit_and_nothing_is_left_to_do() {
    for source in sources() {
        for word in ["unbounded", "TODO", "FIXME", "todo", "unimplemented", "dbg"] {
            assert!(!has_word(&source.text, word), "{}: {word}", source.path);
        }
        if source.is_tests() {
            continue;
        }
        for call in [".unwrap()", "Instant::now()", "SystemTime::now()"] {
            // Time is an argument everywhere but where the clock itself is.
            let is_clock = source.path == "src/service/clock.rs";
            let is_there = source.code.contains(call) && !(is_clock && call.contains("now"));
            assert!(!is_there, "{}: {call}", source.path);
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read_in_one_go() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines", source.path);
    }
    let main = fs::read_to_string(root().join("src/main.rs")).expect("there is a program");
    assert!(main.lines().count() <= 150, "src/main.rs is a table of contents");
}

#[test]
fn there_is_a_place_for_everything() {
    let folders = ["boards", "scripts", "src", "target", "tests"];
    for entry in fs::read_dir(root()).expect("the repository can be read").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_known = name.starts_with('.') || folders.contains(&name.as_str());
        assert!(!is_folder || is_known, "{name}: no folder of the design");
    }
    let layers =
        ["engine", "firmware", "service", "find", "web", "init", "lib.rs", "main.rs", "cli.rs"];
    for entry in fs::read_dir(root().join("src")).expect("there are sources").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(layers.contains(&name.as_str()), "src/{name}: no layer of the design");
    }
}

#[test]
fn every_number_of_a_board_is_explained_and_no_board_lacks_one() {
    let profile = |name: &str| {
        let path = root().join("boards").join(name).join("profile.toml");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let keys = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        lines.map(|line| line.split(['=', '#']).next().unwrap_or("").trim().into()).collect()
    };
    let explained = profile("small");
    for line in explained.lines().filter(|line| line.contains('=')) {
        let (_, reason) = line.split_once('#').unwrap_or_else(|| panic!("no reason: {line}"));
        assert!(reason.trim().len() > 8, "{line}");
    }
    let wanted = keys(&explained);
    for entry in fs::read_dir(root().join("boards")).expect("there are boards").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.path().join("profile.toml").exists() {
            continue;
        }
        let text = profile(&name);
        assert!(text.starts_with("# "), "{name}: its first line says what the machine is");
        let (of_all, of_firmware) = text.split_once("[image]\n").unwrap_or((&text, ""));
        assert_eq!(keys(of_all), wanted, "{name}");
        assert_eq!(!of_firmware.is_empty(), name.starts_with("mcu-"), "{name}");
        if !of_firmware.is_empty() {
            assert_eq!(keys(of_firmware), ["unit_kib", "image_mib", "whole_mib"], "{name}");
        }
    }
}

/// Every file of Rust under `src`.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut pending = vec![root().join("src")];
    while let Some(folder) = pending.pop() {
        let entries = fs::read_dir(&folder).expect("a folder of sources can be read");
        let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        for path in paths {
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source::read(&path));
            }
        }
    }
    assert!(found.len() > 20, "the sources were found");
    found
}

/// The text without its tests, comments and strings; lines stay where they are.
fn code_of(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]").next().unwrap_or(text);
    let lines = text.lines().map(|line| {
        let mut code = String::new();
        let (mut chars, mut quoted) = (line.chars().peekable(), false);
        while let Some(char) = chars.next() {
            match char {
                '\\' if quoted => drop(chars.next()),
                '"' => quoted = !quoted,
                '/' if !quoted && chars.peek() == Some(&'/') => break,
                _ if !quoted => code.push(char),
                _ => {}
            }
        }
        code + "\n"
    });
    lines.collect()
}

/// Whether `text` has `word`, not as a part of another.
fn has_word(text: &str, word: &str) -> bool {
    let is_part =
        |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) =
            (text[..at].chars().next_back(), text[at + word.len()..].chars().next());
        !is_part(before) && !is_part(after)
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Longer files have been seen to become drawers.
const LINES_MAX: usize = 600;
