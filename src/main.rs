//! The `ringway` program: arguments in, [`ringway::control::main`] out.

fn main() -> std::process::ExitCode {
    ringway::control::main()
}
