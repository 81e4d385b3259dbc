//! Prometheus text, read.

/// One reading of `/metrics`.
#[derive(Debug)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Parses the text format.
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self(
            samples
                .map(|line| {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    (series.to_owned(), value.parse().unwrap())
                })
                .collect(),
        )
    }

    /// The sum of all series called `holdline_<name>` (or `name` as it is) that have each of the labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let prefixed = format!("holdline_{name}");
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let fits = |series: &str| {
            let (family, rest) = series.split_once('{').unwrap_or((series, ""));
            (family == prefixed || family == name) && labels.iter().all(|label| rest.contains(label.as_str()))
        };
        self.0.iter().filter(|(series, _)| fits(series)).map(|(_, value)| value).sum()
    }
}
