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

const PAGE: &str = include_str!("dashboard/page.html");

static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; form-action 'none'; \
         base-uri 'none'; frame-ancestors 'none'",
        digest("script"),
        digest("style")
    )
});

pub(super) async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    (headers, PAGE)
}

/// The source expression (CSP level 3, section 2.3.1) of the page's only element of this name.
fn digest(element: &str) -> String {
    let content = content(element).unwrap_or_default();
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

fn content(element: &str) -> Option<&'static str> {
    let (_, from) = PAGE.split_once(&format!("<{element}>"))?;
    Some(from.split_once(&format!("</{element}>"))?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_with_one_script_one_style_and_no_attributes_that_the_policy_forbids() {
        for element in ["script", "style"] {
            assert!(content(element).is_some_and(|content| content.len() > 100), "{element}");
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        for forbidden in [" style=", " onclick=", "http://", "https://", "innerHTML", "@import", "url("] {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
    }
}
