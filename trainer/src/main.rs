//! The program `trainer`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    trainer::main()
}
