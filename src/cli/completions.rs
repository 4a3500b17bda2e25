//! `outrider completions`: shell completions.

use std::process::ExitCode;

use clap_complete::Shell;

use super::print;

/// Print shell completions
///
/// Prints a script that teaches a shell to complete the subcommands and options of outrider.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outrider completions bash > ~/.local/share/bash-completion/completions/outrider
  outrider completions zsh > ~/.zfunc/_outrider
  outrider completions fish > ~/.config/fish/completions/outrider.fish")]
pub(super) struct Args {
    /// The shell to complete in
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: &Args) -> ExitCode {
    // To memory first: the generator panics if its output is closed early.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "outrider", &mut script);
    print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_script_names_every_subcommand() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut crate::cli::command(), "outrider", &mut script);
            let script = String::from_utf8(script).unwrap();
            for subcommand in crate::cli::command().get_subcommands() {
                assert!(
                    script.contains(subcommand.get_name()),
                    "{shell}: {}",
                    subcommand.get_name()
                );
            }
        }
    }
}
