//! The layout a model was trained in, as a Hugging Face chat template.
//!
//! In: a template of salmon with the field `instruction`. Out: a `chat_template.jinja` whose rendering of one user turn
//! is the same text. The template is rendered around a marker and its parts become literals, so that whatever it
//! uses (includes, rules, white space control) needs nothing of the sort in transformers.

use serde_json::json;

use crate::principle::Templates;
use crate::{Error, Result};

/// A text that no template holds by itself.
const MARKER: &str = "\u{27e6}instruction\u{27e7}";

/// The chat template for models that read `template`; with `bos`, conversations begin with the bos token.
///
/// # Errors
/// A configuration error for a template that cannot be rendered or does not show the instruction.
pub(super) fn chat_template(templates: &Templates, template: &str, bos: bool) -> Result<String> {
    let rendered = templates.render(template, json!({"instruction": MARKER}))?;
    let parts: Vec<String> = rendered.split(MARKER).map(literal).collect();
    if parts.len() < 2 {
        return Err(Error::config(format!("template {template}"), "does not show the field `instruction`"));
    }
    let prompt = parts.join(" + message['content'] + ");
    let bos = if bos { "{{- bos_token -}}\n" } else { "" };
    Ok(format!(
        "{bos}{{%- for message in messages -%}}
{{%- if message['role'] == 'user' -%}}
{{{{- {prompt} -}}}}
{{%- elif message['role'] == 'assistant' -%}}
{{{{- message['content'] + eos_token -}}}}
{{%- else -%}}
{{{{- raise_exception('this model knows turns of the user and the assistant only') -}}}}
{{%- endif -%}}
{{%- endfor -%}}
"
    ))
}

/// A string literal of Jinja; its escapes are those of JSON.
fn literal(text: &str) -> String {
    json!(text).to_string()
}
