//! Path patterns as other routers write them, which stand for nothing here: what was probably meant.

use crate::config::notice::quoted;

/// What to write instead, if `pattern` looks like one of another router.
pub(super) fn foreign(pattern: &str) -> Option<String> {
    let body = pattern.strip_prefix(['^', '~']).unwrap_or(pattern).trim_end_matches('$');
    let segments: Vec<&str> = body.split('/').collect();
    let last = segments.len() - 1;
    let ours: Vec<String> = segments.iter().enumerate().map(|(at, segment)| ours(segment, at == last)).collect();
    let meant = ours.join("/");
    (meant != pattern).then(|| {
        let pattern = quoted(pattern);
        format!("{pattern} is taken letter by letter; for any text in its place write {}", quoted(&meant))
    })
}

/// A segment of a path as it is written here. What takes the rest of a path does so at its end only.
fn ours(segment: &str, is_last: bool) -> String {
    let named = |name: &str| if is_last { format!("{{*{name}}}") } else { format!("{{{name}}}") };
    if matches!(segment, "*" | "**" | "(.*)" | ".*" | "(.+)" | ".+") {
        return named("rest");
    }
    if let Some(name) = segment.strip_prefix('*').filter(|name| is_name(name)) {
        return named(name);
    }
    if let Some(name) = segment.strip_prefix(':').filter(|name| is_name(name)) {
        return format!("{{{name}}}");
    }
    let within = |open, close| segment.strip_prefix(open)?.strip_suffix(close);
    if let Some(name) = within('<', '>').map(|inside| inside.rsplit_once(':').map_or(inside, |(_, name)| name))
        && is_name(name)
    {
        return format!("{{{name}}}");
    }
    let braced = within('{', '}');
    if let Some(name) = braced.and_then(|inside| inside.strip_suffix("...").or(inside.strip_suffix(":path")))
        && is_name(name)
    {
        return named(name);
    }
    segment.to_owned()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_routers_write_is_told_as_it_is_written_here() {
        for (theirs, ours) in [
            ("/ws/:session", "/ws/{session}"),
            ("/ws/:a/x/:b", "/ws/{a}/x/{b}"),
            ("/ws/*", "/ws/{*rest}"),
            ("/ws/**", "/ws/{*rest}"),
            ("/*path", "/{*path}"),
            ("/a/*/b", "/a/{rest}/b"),
            ("^/ws/(.*)$", "/ws/{*rest}"),
            ("/ws/<session>", "/ws/{session}"),
            ("/ws/<int:id>", "/ws/{id}"),
            ("/ws/{rest...}", "/ws/{*rest}"),
            ("/files/{p:path}", "/files/{*p}"),
        ] {
            let expected =
                format!("\"{theirs}\" is taken letter by letter; for any text in its place write \"{ours}\"");
            assert_eq!(foreign(theirs), Some(expected));
        }
    }

    #[test]
    fn patterns_of_ours_and_plain_paths_are_not_doubted() {
        for pattern in ["/", "/ws", "/ws/{device}", "/{*rest}", "/a/{b}-x", "/a:b/c", "/v1/pipes/{id}:move", "/{{a}}"] {
            assert_eq!(foreign(pattern), None, "{pattern}");
        }
    }
}
