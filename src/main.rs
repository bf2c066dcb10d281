//! The `ringway` program: arguments in, [`ringway::control::main`] out.

/// Returns freed memory to the system, which glibc's does not from a worker's thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ringway::control::main()
}
