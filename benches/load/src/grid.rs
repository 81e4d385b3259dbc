//! A Markdown table whose columns stand below each other in a terminal as well, and how figures are written in it.

use std::fmt::{self, Display};

/// The first columns are text, the others are figures.
pub struct Grid {
    texts: usize,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self { texts: 1, rows: vec![head.into_iter().map(str::to_owned).collect()] }
    }

    /// Another number of columns of text than one.
    pub fn texts(mut self, texts: usize) -> Self {
        self.texts = texts;
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub const fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl Display for Grid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column < self.texts { write!(out, "| {cell:<width$} ")? } else { write!(out, "| {cell:>width$} ")? }
            }
            writeln!(out, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    if column < self.texts {
                        write!(out, "|{:-<1$}", "", width + 2)?;
                    } else {
                        write!(out, "|{:->1$}", ":", width + 2)?;
                    }
                }
                writeln!(out, "|")?;
            }
        }
        Ok(())
    }
}

/// Three figures that count, and thousands apart.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 999.5 => format!("{:.0},{:03.0}", (value.round() / 1e3).trunc(), size.round() % 1e3),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.005 => format!("{value:.2}"),
        _ => "0".to_owned(),
    }
}

/// A figure that may not be there.
pub fn or_none(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), figure)
}

pub fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"))
}

/// A ratio beside its target, in bold where it is above.
pub fn judged(value: Option<f64>, target: Option<f64>) -> String {
    match (value, target) {
        (Some(value), Some(target)) if value > target => format!("**{value:.2}**"),
        (value, _) => ratio(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut grid = Grid::new(["load", "µs"]);
        grid.row(["64 B".to_owned(), "1".to_owned()]);
        grid.row(["a".to_owned(), "12.25".to_owned()]);
        assert_eq!(grid.to_string(), "| load |    µs |\n|------|------:|\n| 64 B |     1 |\n| a    | 12.25 |\n");
    }

    #[test]
    fn figures_keep_three_digits_that_count() {
        assert_eq!(
            [0.0, 0.482, 7.25, 13.84, 178.4, 1999.6, 123_456.0].map(figure),
            ["0", "0.48", "7.25", "13.8", "178", "2,000", "123,456"]
        );
    }
}
