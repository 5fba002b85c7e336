//! Why a text isn't accepted as a setting's value. Knows nothing of where it stands.

/// Why a text isn't accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// The part of the text that is meant; none for the whole.
    pub token: Option<String>,
    /// What is accepted.
    pub accepted: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Refusal {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), token: None, accepted: None, hint: None }
    }

    pub(super) fn about(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(super) fn accepting(mut self, accepted: impl Into<String>) -> Self {
        self.accepted = Some(accepted.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
