//! Flags of `trainer metrics` and `trainer evaluate` in a program without the feature `metrics`.

use clap::Args;

/// Any arguments.
#[derive(Args, Clone)]
pub struct NotBuiltArgs {
    /// Arguments, which are repeated in the error message.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub arguments: Vec<String>,
}

impl NotBuiltArgs {
    /// Returns the error that tells how to build the program with the command.
    pub fn error(&self, command: &str) -> anyhow::Error {
        let words: Vec<&str> =
            std::iter::once(command).chain(self.arguments.iter().map(String::as_str)).collect();
        anyhow::anyhow!(
            "this program was built without metrics; build it with them and run the command again: \
             cargo run --release -p trainer --features metrics -- {}",
            words.join(" ")
        )
    }
}
