//! The `ringway` program: arguments in, [`ringway::control::main`] out.

#[global_allocator]
static ALLOCATOR: ringway::worker::heap::Heap = ringway::worker::heap::Heap;

fn main() -> std::process::ExitCode {
    ringway::control::main()
}
