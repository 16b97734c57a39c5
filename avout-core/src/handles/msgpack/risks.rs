/// Whether a value has something in it that may be lost on the way, or cannot be read back. What reads a value goes partly through
/// serde's own buffers (for flattened fields and for enums that are untagged or tagged inside), which do not carry all that a value
/// may have.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::handles) struct Risks {
    any: bool,
    as_text: bool,
}

impl Risks {
    /// There is something that any format may lose: an integer of 128 bits, `Some` around nothing, a key that comes twice, a field
    /// that was left out.
    pub(super) fn found(&mut self) {
        self.any = true;
    }

    /// There is something that text may lose: a number that is not finite, a key that is no text, bytes, a unit struct.
    pub(super) fn found_for_text(&mut self) {
        self.as_text = true;
    }

    /// Whether MessagePack may lose it.
    pub(in crate::handles) fn any(self) -> bool {
        self.any
    }

    /// Whether JSON may lose it.
    pub(in crate::handles) fn any_as_text(self) -> bool {
        self.any || self.as_text
    }
}
