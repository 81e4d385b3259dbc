"""The table of the applications, printed and kept in docs/conversations.md between two markers."""

from rig import ROOT

DOCUMENT = ROOT / "docs/conversations.md"
BEGIN, END = "<!-- applications: begin, written by scripts/applications --write -->", "<!-- applications: end -->"


def cell(found):
    """What a user sees."""
    if found is None:
        return "-"
    parts = [f"{found.silence:.1f} s" if found.goes_on else "hangs"]
    parts += [f"{number} {word}" for number, word in
              ((found.lost, "lost"), (found.doubled, "twice"), (found.wrong, "wrong")) if number]
    parts.append("noticed" if found.told else "")
    return ", ".join(part for part in parts if part)


def taken_for(ways):
    """What kind of conversation Holdline saw, by its name or by its profile's."""
    found = ways.get("kill") or ways.get("normal")
    names = {known["profile"] or known["kind"] for known in found.decided if known} if found else set()
    return ", ".join(sorted(names)) or "-"


def markdown(results):
    lines = ["| application | taken for | without Holdline: SIGKILL | SIGKILL | drain |", "|---|---|---|---|---|"]
    for application, ways, _ in results:
        cells = [cell(ways.get(way)) for way in ("without", "kill", "drain")]
        lines.append(f"| {application.name} | {taken_for(ways)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(text):
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
