//! The layouts of the prompts, as the `pocket_*` templates render them, in pieces that documents are made of.

/// The judge's question up to the outputs.
pub fn judge_head(instruction: &str, a: &str, b: &str) -> String {
    format!(
        "# Judge \n compare two outputs for one instruction . \n ### Instruction \n {instruction} \n \
         ### Output ( a ) \n {a} \n ### Output ( b ) \n {b}"
    )
}

/// The principle in question, after [`judge_head`]; ends where the answer letter stands.
pub fn judge_principle(name: &str, definition: &str) -> String {
    format!(" \n ### Principle \n {name} : {definition} \n ### Verdict{}", judge_next(name))
}

/// A further question about the same outputs.
pub fn judge_next(name: &str) -> String {
    format!(" \n more {name} is output (")
}

/// The reward prompt up to the list of principles.
pub fn review_head(instruction: &str, answer: &str) -> String {
    format!("# Review \n ### Response \n {answer} \n ### Instruction \n {instruction} \n ### Principles")
}

/// The end of the reward prompt; `good` or `bad` follows.
pub const REVIEW_TAIL: &str = " \n ### Verdict \n the response is";

/// The prompt without rules; ends where the answer begins.
pub fn chat(question: &str) -> String {
    format!("# Assistant{} \n", turn(question))
}

/// The head of the self-align prompt; rules and turns follow.
pub const RULES_HEAD: &str = "# Assistant \n ### Rules";

/// One question after the rules; a line break and the answer follow.
pub fn turn(question: &str) -> String {
    format!(" \n ### User \n {question} \n ### Assistant")
}
