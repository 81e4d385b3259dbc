//! `GET /`: the dashboard, one page that asks the admin API as every other client does.
//!
//! The page is open because it holds no data: what it shows it reads with the visitor's token. It runs nothing but its
//! own script and asks only this listener, which its `Content-Security-Policy` holds it to.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("dashboard/style.css");
/// One script, in the order in which it is read: what is asked, the sections, what shows them.
const SCRIPT: &str = concat!(
    include_str!("dashboard/ask.js"),
    include_str!("dashboard/overview.js"),
    include_str!("dashboard/backends.js"),
    include_str!("dashboard/pipes.js"),
    include_str!("dashboard/events.js"),
    include_str!("dashboard/main.js"),
);

static PAGE: LazyLock<String> =
    LazyLock::new(|| include_str!("dashboard/page.html").replace("{{style}}", STYLE).replace("{{script}}", SCRIPT));

static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; form-action 'none'; \
         base-uri 'none'; frame-ancestors 'none'",
        digest(SCRIPT),
        digest(STYLE)
    )
});

pub(super) async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, PAGE.as_str())
}

/// The source expression (CSP level 3, section 2.3.1) of an element with this content.
fn digest(content: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_with_one_script_one_style_and_no_attributes_that_the_policy_forbids() {
        for (element, content) in [("script", SCRIPT), ("style", STYLE)] {
            assert!(PAGE.contains(&format!("<{element}>{content}</{element}>")), "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        assert!(!PAGE.contains("{{"), "a part of the page is missing");
        for forbidden in [" style=", " onclick=", "http://", "https://", "innerHTML", "@import", "url("] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
