//! The groups that a route puts its pipes into: one template for each label.
//!
//! Refuses, at configuration time, names that no label can have. A label whose template lacks a part of what it takes from
//! the request is left out; a request that would make a label of what cannot be one is refused.

use std::collections::BTreeMap;

use holdline_core::labels::{LabelError, Relabel, is_name};

use super::NoRoute;
use super::auth::Auth;
use super::template::{Template, Values};

/// The templates by the names of their labels.
#[derive(Debug, Default)]
pub struct LabelRules(Vec<(String, Template)>);

impl LabelRules {
    /// The rules of a route whose paths have the parameters `names`.
    pub(super) fn compile(
        written: &BTreeMap<String, String>,
        names: &[String],
        auth: Option<&Auth>,
    ) -> Result<Self, String> {
        let rule = |(label, text): (&String, &String)| {
            if !is_name(label) {
                return Err(LabelError::Name(label.clone()).to_string());
            }
            if text.is_empty() {
                return Err(format!("the label {label} is empty; write a template such as \"{{query.{label}}}\""));
            }
            let template = Template::for_label(text, names)?;
            template.unanswered(auth).map_or(Ok((label.clone(), template)), Err)
        };
        written.iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// The labels that a request brings.
    pub(super) fn of(&self, values: &Values<'_>) -> Result<Relabel, NoRoute> {
        let mut labels = Relabel::default();
        for (label, template) in &self.0 {
            if let Some(value) = template.key(values)? {
                labels.set(label, &value).map_err(NoRoute::NoLabel)?;
            }
        }
        Ok(labels)
    }
}
