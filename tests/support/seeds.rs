//! A scenario run for several seeds; one that fails says for which.

/// Runs `scenario` for each of so many seeds, or for the one in `SIM_SEED` alone.
pub fn for_seeds(count: u64, scenario: impl Fn(u64)) {
    let only = std::env::var("SIM_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("SIM_SEED is a number"));
    for seed in only.map_or(0..count, |seed| seed..seed + 1) {
        let failing = Failing(seed);
        scenario(seed);
        std::mem::forget(failing);
    }
}

/// Says which seed was running when a scenario fails.
struct Failing(u64);

impl Drop for Failing {
    fn drop(&mut self) {
        eprintln!("this was seed {0}: SIM_SEED={0} repeats it", self.0);
    }
}
