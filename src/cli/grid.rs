//! Tables in boxes, measured in terminal columns.

use super::screen::{Color, Screen};

/// A table: a header (which may be empty) and rows of as many cells.
#[derive(Debug, Default)]
pub struct Grid {
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
}

/// One cell; its colour does not count for its width.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    pub text: String,
    pub color: Option<Color>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), color: None }
    }
}

impl Grid {
    /// How many columns of the terminal it takes.
    pub fn width(&self) -> usize {
        self.widths().iter().map(|width| width + 3).sum::<usize>() + 1
    }

    /// The table as text, with a newline after each line.
    pub fn draw(&self, screen: &Screen<'_>) -> String {
        let widths = self.widths();
        let rule = |left: &str, middle: &str, right: &str| {
            let parts: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}\n", parts.join(middle))
        };
        let mut text = rule("┌", "┬", "┐");
        if !self.header.is_empty() {
            let cells =
                self.header.iter().map(|title| Cell { text: title.to_string(), color: Some(Color::Cyan) });
            text.push_str(&line(&cells.collect::<Vec<_>>(), &widths, screen));
            text.push_str(&rule("├", "┼", "┤"));
        }
        for row in &self.rows {
            text.push_str(&line(row, &widths, screen));
        }
        text + &rule("└", "┴", "┘")
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.first().map_or(self.header.len(), Vec::len);
        let widest = |column: usize| {
            let title = self.header.get(column).map_or(0, |title| columns_of(title));
            self.rows.iter().map(|row| columns_of(&row[column].text)).max().unwrap_or(0).max(title)
        };
        (0..columns).map(widest).collect()
    }
}

fn line(cells: &[Cell], widths: &[usize], screen: &Screen<'_>) -> String {
    let mut line = String::from("│");
    for (cell, width) in cells.iter().zip(widths) {
        let text = match cell.color {
            Some(color) => screen.paint(color, &cell.text),
            None => cell.text.clone(),
        };
        let blanks = " ".repeat(width.saturating_sub(columns_of(&cell.text)));
        line.push_str(&format!(" {text}{blanks} │"));
    }
    line.push('\n');
    line
}

/// How many columns a text takes on a terminal.
pub fn columns_of(text: &str) -> usize {
    #[cfg(feature = "width")]
    return unicode_width::UnicodeWidthStr::width(text);
    #[cfg(not(feature = "width"))]
    return text.chars().count();
}

/// The text, cut to at most `columns` with a `…` at its end.
pub fn fitted(text: &str, columns: usize) -> String {
    if columns_of(text) <= columns {
        return text.to_string();
    }
    let mut cut = String::new();
    for c in text.chars() {
        let mut longer = cut.clone();
        longer.push(c);
        if columns_of(&longer) + 1 > columns {
            break;
        }
        cut = longer;
    }
    cut + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_drawn_around_the_widest_cells() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen { out: &mut out, err: &mut err, width: None, color: false, silent: false };
        let mut grid = Grid {
            header: vec!["id", "name"],
            rows: vec![vec!["0".into(), "café".into()], vec!["11".into(), "x".into()]],
        };
        let expected = "\
┌────┬──────┐
│ id │ name │
├────┼──────┤
│ 0  │ café │
│ 11 │ x    │
└────┴──────┘
";
        assert_eq!(grid.draw(&screen), expected);
        assert_eq!(grid.width(), 13);
        screen.color = true;
        grid.rows[0][1].color = Some(Color::Green);
        assert!(grid.draw(&screen).contains("│ 0  │ \x1b[32mcafé\x1b[39m │"));
        grid.rows.clear();
        assert_eq!(grid.width(), 13);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(fitted("short", 5), "short");
        assert_eq!(fitted("longer", 5), "long…");
        assert_eq!(columns_of(&fitted("日本語日本語", 5)), 5);
    }
}
