//! Text as it goes into the tables, and when two texts count as the same.
//!
//! In: raw text of a source. Out: trimmed text with `\n` line ends, 16-byte keys that ignore case and white space,
//! excerpts for the `dropped` table.

/// The longest excerpt in the `dropped` table, in characters.
const EXCERPT_CHARS: usize = 200;

/// `\r\n` becomes `\n`; white space and byte-order marks at both ends go.
pub(crate) fn text(raw: &str) -> String {
    let trimmed = raw.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if trimmed.contains('\r') { trimmed.replace("\r\n", "\n") } else { trimmed.to_owned() }
}

/// 16 bytes of the BLAKE3 hash of the lower-cased words: equal for texts that differ in case or white space only.
pub(crate) fn key(text: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for word in text.split_whitespace() {
        hasher.update(word.to_lowercase().as_bytes());
        hasher.update(b" ");
    }
    let bytes: [u8; 32] = hasher.finalize().into();
    let mut short = [0u8; 16];
    short.copy_from_slice(&bytes[..16]);
    short
}

/// The key as 32 hexadecimal digits.
pub(crate) fn hex(key: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(key))
}

/// The first 200 characters.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS).collect()
}

/// The first 200 characters of bytes that may not be UTF-8.
pub(crate) fn excerpt_bytes(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(4 * EXCERPT_CHARS)];
    excerpt(&String::from_utf8_lossy(head))
}

/// In which split a prompt with this key belongs: the same for the same prompt, whatever file it is in.
pub(crate) fn split(key: [u8; 16], test_fraction: f64) -> &'static str {
    let draw = crate::draw::key(0, &["import split", &hex(key)]).uniform(0);
    if draw < test_fraction { "test" } else { "train" }
}
