//! How the path explains itself. The same code runs with [`Silent`] in a worker, where every call compiles to nothing,
//! and with [`Explain`] under `nuswitch trace`.

/// Hears each decision.
pub trait Tracer {
    /// `stage` decided what `text` says, in the configuration's words.
    fn say(&mut self, stage: &'static str, text: impl FnOnce() -> String);
}

/// Hears nothing and costs nothing.
pub struct Silent;

impl Tracer for Silent {
    #[inline(always)]
    fn say(&mut self, _stage: &'static str, _text: impl FnOnce() -> String) {}
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage of the path: `ingress`, `bridge`, `egress`.
    pub stage: String,
    /// What it decided.
    pub text: String,
}

/// Writes every decision down.
#[derive(Default)]
pub struct Explain {
    /// In order.
    pub steps: Vec<Step>,
}

impl Tracer for Explain {
    fn say(&mut self, stage: &'static str, text: impl FnOnce() -> String) {
        self.steps.push(Step { stage: stage.to_owned(), text: text() });
    }
}
