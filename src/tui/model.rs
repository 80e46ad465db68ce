//! What is shown: the tab, the row, the order, the filter, the pause.
//!
//! In: keys and snapshots. Out: the state that [`super::view`] draws. A selected row is followed by what it is, not by where it
//! stands, so that numbers may change beneath the cursor. Pure.

use super::cells::By;
use super::detail::{self, Line};
use super::news::News;
use super::table::{self, Row, RowId, Tab, Table};
use super::{Key, Snapshot};

/// A filter is no longer than this.
const MAX_FILTER: usize = 60;

/// What lies over the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The filter is being written.
    Filter,
    /// One row, from this line on.
    Detail(RowId, usize),
    /// The keys, from this line on.
    Help(usize),
}

/// What a tab remembers.
#[derive(Clone, Debug, Default)]
struct Place {
    selected: Option<RowId>,
    /// Where it stood when it was last seen.
    at: usize,
    /// Somebody chose it; until then whatever stands first is looked at.
    chosen: bool,
    /// The first row on the screen.
    first: usize,
    /// The column that rows are sorted by, and whether from the greatest down.
    sort: Option<(usize, bool)>,
}

/// The state of the view.
#[derive(Debug, Default)]
pub struct Model {
    shown: Option<Snapshot>,
    /// What came while paused.
    waiting: Option<Snapshot>,
    paused: bool,
    tab: Tab,
    places: [Place; Tab::ALL.len()],
    filter: String,
    over: Over,
    news: News,
    /// Rows of the table, or lines of what lies over it, that the screen has.
    room: usize,
    quit: bool,
}

impl Model {
    /// Takes a snapshot in. While paused it waits; what is new of findings is told all the same.
    pub fn look(&mut self, snapshot: Snapshot) {
        self.news.read(&snapshot.report);
        if self.paused && self.shown.is_some() {
            self.waiting = Some(snapshot);
        } else {
            self.shown = Some(snapshot);
            self.settle();
        }
    }

    /// The screen has room for so many rows.
    pub fn fit(&mut self, room: usize) {
        self.room = room;
        self.settle();
    }

    /// Takes a key.
    pub fn press(&mut self, key: Key) {
        if key == Key::Interrupt {
            self.quit = true;
            return;
        }
        match &self.over {
            Over::Filter => self.write(key),
            Over::Detail(..) | Over::Help(_) => self.read(key),
            Over::Nothing => self.walk(key),
        }
        self.settle();
    }

    fn write(&mut self, key: Key) {
        match key {
            Key::Char(c) if !c.is_control() && self.filter.chars().count() < MAX_FILTER => {
                self.filter.push(c)
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Enter => self.over = Over::Nothing,
            Key::Escape => {
                self.filter.clear();
                self.over = Over::Nothing;
            }
            _ => {}
        }
    }

    /// Keys while a text lies over the table.
    fn read(&mut self, key: Key) {
        let page = self.room.saturating_sub(1).max(1);
        let (Over::Detail(_, line) | Over::Help(line)) = &mut self.over else {
            return;
        };
        match key {
            Key::Down | Key::Char('j') => *line = line.saturating_add(1),
            Key::Up | Key::Char('k') => *line = line.saturating_sub(1),
            Key::PageDown | Key::Char(' ') => *line = line.saturating_add(page),
            Key::PageUp => *line = line.saturating_sub(page),
            Key::Home | Key::Char('g') => *line = 0,
            Key::End | Key::Char('G') => *line = usize::MAX,
            Key::Char('p') => self.pause(),
            Key::Escape | Key::Enter | Key::Backspace | Key::Left | Key::Char('q' | 'h' | '?') => {
                self.over = Over::Nothing;
            }
            _ => {}
        }
    }

    fn walk(&mut self, key: Key) {
        let page = self.room.saturating_sub(1).max(1);
        match key {
            Key::Char('q') => self.quit = true,
            Key::Char('?' | 'h') => self.over = Over::Help(0),
            Key::Char('/') => self.over = Over::Filter,
            Key::Char('p' | ' ') => self.pause(),
            Key::Char('s') => self.sort_by_next(),
            Key::Char('r') => self.reverse(),
            Key::Char(c @ '1'..='6') => {
                let at = usize::try_from(c.to_digit(10).unwrap_or(1)).unwrap_or(1) - 1;
                self.tab = Tab::ALL.get(at).copied().unwrap_or_default();
            }
            Key::Tab | Key::Right => self.turn(1),
            Key::BackTab | Key::Left => self.turn(Tab::ALL.len() - 1),
            Key::Down | Key::Char('j') => self.go(|at, _| at.saturating_add(1)),
            Key::Up | Key::Char('k') => self.go(|at, _| at.saturating_sub(1)),
            Key::PageDown => self.go(|at, _| at.saturating_add(page)),
            Key::PageUp => self.go(|at, _| at.saturating_sub(page)),
            Key::Home | Key::Char('g') => self.go(|_, _| 0),
            Key::End | Key::Char('G') => self.go(|_, last| last),
            Key::Enter => {
                if let Some(id) = self.place().selected.clone() {
                    self.over = Over::Detail(id, 0);
                }
            }
            Key::Escape => self.filter.clear(),
            Key::Char(_) | Key::Backspace | Key::Interrupt => {}
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused
            && let Some(newest) = self.waiting.take()
        {
            self.shown = Some(newest);
        }
    }

    fn turn(&mut self, by: usize) {
        let at = Tab::ALL.iter().position(|t| *t == self.tab).unwrap_or(0);
        self.tab = Tab::ALL
            .get((at + by) % Tab::ALL.len())
            .copied()
            .unwrap_or_default();
    }

    /// The next column; after the last, the order that the report has.
    fn sort_by_next(&mut self) {
        let Some(table) = self.shown.as_ref().map(|s| table::of(self.tab, s)) else {
            return;
        };
        let next = self.place().sort.map_or(0, |(column, _)| column + 1);
        // Numbers are looked at for the greatest, names along the alphabet.
        let sort = table.columns.get(next).map(|column| (next, column.number));
        self.place_mut().sort = sort;
    }

    fn reverse(&mut self) {
        if let Some((_, down)) = &mut self.place_mut().sort {
            *down = !*down;
        }
    }

    fn go(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let Some(table) = self.table() else { return };
        let last = table.rows.len().saturating_sub(1);
        let at = to(self.place().at, last).min(last);
        let selected = table.rows.get(at).map(|row| row.id.clone());
        let place = self.place_mut();
        (place.at, place.selected, place.chosen) = (at, selected, at > 0);
    }

    /// Finds the selected row where it stands now; where it is gone, the one that took its place. Keeps it on the screen.
    fn settle(&mut self) {
        let Some(table) = self.table() else { return };
        let room = self.room.max(1);
        let place = self.place();
        let found = place
            .selected
            .as_ref()
            .filter(|_| place.chosen)
            .and_then(|id| table.rows.iter().position(|row| row.id == *id));
        let last = table.rows.len().saturating_sub(1);
        let at = found.unwrap_or_else(|| place.at.min(last));
        let mut first = place.first.min(table.rows.len().saturating_sub(room));
        if at < first {
            first = at;
        } else if at >= first + room {
            first = at + 1 - room;
        }
        let selected = table.rows.get(at).map(|row| row.id.clone());
        let place = self.place_mut();
        (place.at, place.first, place.selected) = (at, first, selected);
    }

    fn place(&self) -> &Place {
        let at = Tab::ALL.iter().position(|t| *t == self.tab).unwrap_or(0);
        &self.places[at.min(self.places.len() - 1)]
    }

    fn place_mut(&mut self) -> &mut Place {
        let at = Tab::ALL.iter().position(|t| *t == self.tab).unwrap_or(0);
        let last = self.places.len() - 1;
        &mut self.places[at.min(last)]
    }

    /// The table as it is shown: filtered and sorted.
    pub fn table(&self) -> Option<Table> {
        let mut table = table::of(self.tab, self.shown.as_ref()?);
        if !self.filter.is_empty() {
            let wanted = self.filter.to_lowercase();
            table.rows.retain(|row| matches(row, &wanted));
        }
        if let Some((column, down)) = self.place().sort {
            // A stable sort: rows that are alike keep the report's order.
            table.rows.sort_by(|a, b| order(a, b, column, down));
        }
        Some(table)
    }

    /// The lines of the row that lies open; a row that is gone says so.
    pub fn detail(&self) -> Option<Vec<Line>> {
        match (&self.over, &self.shown) {
            (Over::Detail(id, _), Some(snapshot)) => Some(detail::of(id, snapshot)),
            _ => None,
        }
    }

    /// Whether it is over.
    pub fn quit(&self) -> bool {
        self.quit
    }

    /// Whether it stands still.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// The tab.
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// What rows must contain; empty for all.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// What lies over the table.
    pub fn over(&self) -> &Over {
        &self.over
    }

    /// What is shown, once there is something.
    pub fn shown(&self) -> Option<&Snapshot> {
        self.shown.as_ref()
    }

    /// What was new of findings.
    pub fn news(&self) -> &News {
        &self.news
    }

    /// The first row on the screen, and the selected one.
    pub fn window(&self) -> (usize, usize) {
        (self.place().first, self.place().at)
    }

    /// The column that rows are sorted by, and whether from the greatest down.
    pub fn sort(&self) -> Option<(usize, bool)> {
        self.place().sort
    }

    /// What lies over the table is so many lines long: it cannot be scrolled beyond its end.
    pub fn long(&mut self, lines: usize) {
        let last = lines.saturating_sub(self.room);
        if let Over::Detail(_, line) | Over::Help(line) = &mut self.over {
            *line = (*line).min(last);
        }
    }
}

fn matches(row: &Row, wanted: &str) -> bool {
    row.cells
        .iter()
        .any(|cell| cell.text.to_lowercase().contains(wanted))
}

fn order(a: &Row, b: &Row, column: usize, down: bool) -> std::cmp::Ordering {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let by = |row: &Row| row.cells.get(column).map_or(By::Nothing, |c| c.by.clone());
    let order = match (by(a), by(b)) {
        (By::Number(a), By::Number(b)) => a.total_cmp(&b),
        (By::Text(a), By::Text(b)) => a.cmp(&b),
        // What is not known is last, whichever way.
        (By::Nothing, By::Nothing) => return Equal,
        (By::Nothing, _) => return Greater,
        (_, By::Nothing) => return Less,
        (By::Number(_), By::Text(_)) => Less,
        (By::Text(_), By::Number(_)) => Greater,
    };
    if down { order.reverse() } else { order }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
