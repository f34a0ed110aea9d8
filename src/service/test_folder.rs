//! A folder of a test's own, which goes with it.

use std::fs;
use std::path::{Path, PathBuf};

/// See the module.
pub struct TestFolder(PathBuf);

impl TestFolder {
    /// An empty one; `name` is that of the test.
    pub fn new(name: &str) -> TestFolder {
        let name = std::format!("perennial-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        TestFolder(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
