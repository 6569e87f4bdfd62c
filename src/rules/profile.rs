//! A profile as text: one stack a line, its functions from the outermost on, joined by `;`, and the fuel that is its own.
//! Tools that draw flame graphs read it.

use std::fmt::Write;
use tillstream_rule_host::StackFuel;

/// The collapsed stacks.
pub(super) fn collapsed(stacks: &[StackFuel]) -> String {
    let mut text = String::new();
    for stack in stacks {
        let frames: Vec<String> = stack.frames.iter().map(|it| frame(it)).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {}", frames.join(";"), stack.fuel);
    }
    text
}

/// A function's name as its author wrote it, without what parts frames and lines.
fn frame(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name)).replace(';', ",").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_a_line_and_names_are_as_written() {
        let stack = |frames: &[&str], fuel| StackFuel {
            frames: frames.iter().map(|it| (*it).into()).collect(),
            fuel,
        };
        let stacks = [
            stack(&["decide", "_ZN15volume_discount10discounted17h0123456789abcdefE"], 70),
            stack(&["decide", "<[T; 3] as core::fmt::Debug>::fmt"], 30),
        ];
        let text = "decide;volume_discount::discounted 70\ndecide;<[T, 3] as core::fmt::Debug>::fmt 30\n";
        assert_eq!(collapsed(&stacks), text);
    }
}
