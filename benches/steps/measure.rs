//! Runs cases: for their time, or for callgrind, which counts their instructions.

use std::{
    fs,
    path::Path,
    process::{Command, exit},
    time::{Duration, Instant},
};

/// Runs of a case whose instructions are counted together, after as many that are not: pools are
/// filled then, and lines of the clock drawn.
const COUNTED_RUNS: u64 = 1000;
/// How long a case is timed, and in how many parts of which the fastest counts.
const TIMED_FOR: Duration = Duration::from_millis(200);
const PARTS: u32 = 5;

/// The argument by which the process under callgrind knows what it is there for.
const COUNT: &str = "--under-callgrind";

/// Takes cases one by one and runs those that are wanted.
pub struct Cases {
    /// Beginnings of names; none means all.
    wanted: Vec<String>,
    is_counting: bool,
}

impl Cases {
    /// One case, named `area/what`.
    pub fn case(&mut self, name: &str, mut run: impl FnMut()) {
        if !(self.wanted.is_empty() || self.wanted.iter().any(|begin| name.starts_with(begin))) {
            return;
        }
        if !self.is_counting {
            println!("{name:<28} {:>9.1} ns", fastest_ns(&mut run));
            return;
        }
        (0..COUNTED_RUNS).for_each(|_| run());
        counted(&mut run);
        // The names are in the order of callgrind's files.
        println!("{name}");
    }
}

/// The only function whose instructions are counted. Never inlined, so that callgrind finds it.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    for _ in 0..COUNTED_RUNS {
        run();
    }
}

fn fastest_ns(run: &mut dyn FnMut()) -> f64 {
    let mut times = |count: u64| {
        let start = Instant::now();
        (0..count).for_each(|_| run());
        start.elapsed()
    };
    let mut count = 1;
    while times(count) < TIMED_FOR / (4 * PARTS) {
        count *= 4;
    }
    let fastest = (0..PARTS).map(|_| times(2 * count)).min().unwrap_or_default();
    fastest.as_nanos() as f64 / (2 * count) as f64
}

/// Does what the arguments ask for with the cases that `give` gives.
pub fn main(give: impl FnOnce(&mut Cases)) {
    // Cargo passes `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let has = |option: &str| args.iter().any(|arg| arg == option);
    let wanted: Vec<String> = args.iter().filter(|arg| !arg.starts_with("--")).cloned().collect();
    if let Some(unknown) =
        args.iter().find(|a| a.starts_with("--") && ![COUNT, "--instructions"].contains(&&***a))
    {
        eprintln!("unknown option {unknown}; there is --instructions, and beginnings of names");
        exit(2);
    }
    if has("--instructions") {
        return count(&wanted);
    }
    give(&mut Cases { wanted, is_counting: has(COUNT) });
}

/// Runs this program under callgrind and prints what it counted, as `name instructions`.
fn count(wanted: &[String]) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let out = folder.path().join("out");
    let program = std::env::current_exe().expect("the program knows where it is");
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .args(["--dump-before=steps::measure::counted", "--dump-after=steps::measure::counted"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .arg(COUNT)
        .args(wanted)
        .output();
    let done = done.unwrap_or_else(|e| {
        eprintln!("cannot run valgrind ({e}); install it: apt-get install valgrind");
        exit(1);
    });
    if !done.status.success() {
        eprint!("{}", String::from_utf8_lossy(&done.stderr));
        eprintln!("the benchmarks failed under valgrind; were they built with");
        eprintln!("--features rustix/use-libc-auxv?");
        exit(1);
    }
    for (index, name) in String::from_utf8_lossy(&done.stdout).lines().enumerate() {
        // Of two files for each case the first has what came before it.
        let file = out.with_extension((2 * index + 2).to_string());
        println!("{name:<28} {:>9.1}", total(&file) as f64 / COUNTED_RUNS as f64);
    }
}

/// The instructions that a file of callgrind's is about.
fn total(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    total.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| {
        eprintln!("{}: no total of callgrind's; is the symbol table stripped?", file.display());
        exit(1);
    })
}
