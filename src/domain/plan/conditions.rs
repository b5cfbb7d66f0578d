//! The filter.

use super::super::column::{Kind, is_date};
use super::super::declaration::{Condition, Literal};
use super::super::filter::Filter;
use super::super::json::is_integer;
use super::Compiler;

/// How deep conditions may be nested.
const DEEPEST: usize = 8;

impl Compiler<'_> {
    pub(super) fn filter(&mut self) -> Option<Filter> {
        let condition = self.from.filter.as_ref()?;
        self.condition("filter", condition, 1)
    }

    fn condition(&mut self, at: &str, condition: &Condition, depth: usize) -> Option<Filter> {
        if depth > DEEPEST {
            self.wrong(at, "", format!("conditions at most {DEEPEST} deep"));
            return None;
        }
        match condition {
            Condition::And(all) => self.conditions(&format!("{at}.and"), all, depth).map(Filter::And),
            Condition::Or(some) => self.conditions(&format!("{at}.or"), some, depth).map(Filter::Or),
            Condition::Not(inner) => {
                let inner = self.condition(&format!("{at}.not"), inner, depth + 1)?;
                Some(Filter::Not(Box::new(inner)))
            }
            Condition::IsNull { column } => {
                let place = self.place(&format!("{at}.column"), column)?;
                Some(Filter::IsNull(self.slot(place, Vec::new())))
            }
            Condition::In { column, values } => self.is_in(at, column, values),
        }
    }

    fn conditions(&mut self, at: &str, conditions: &[Condition], depth: usize) -> Option<Vec<Filter>> {
        if conditions.is_empty() {
            self.wrong(at, "", "at least one condition");
        }
        let numbered = conditions.iter().enumerate();
        let made: Vec<_> = numbered.map(|(n, one)| self.condition(&format!("{at}.{n}"), one, depth + 1)).collect();
        made.into_iter().collect()
    }

    fn is_in(&mut self, at: &str, column: &str, values: &[Literal]) -> Option<Filter> {
        let name = format!("{at}.column");
        let place = self.place(&name, column)?;
        let kind = self.columns[place].kind;
        let fits: (fn(&str) -> bool, &str) = match kind {
            _ if self.columns[place].is_array => (|_| false, "a column that is no array"),
            Kind::Text => (|_| true, "a string"),
            Kind::Integer => (is_integer, "an integer"),
            Kind::Boolean => (|text| matches!(text, "true" | "false"), "true or false"),
            Kind::Date => (is_date, "a date YYYY-MM-DD"),
            Kind::Uuid => (|text| Kind::Uuid.accepts(&format!("\"{text}\"")), "a UUID"),
            Kind::Numeric | Kind::Timestamp | Kind::Json | Kind::Scalar => {
                (|_| false, "a column of type string, integer, bigint, boolean, date or uuid; of others only is_null")
            }
        };
        if values.is_empty() {
            self.wrong(at, "", "at least one value");
        }
        let is_of_text = matches!(kind, Kind::Text | Kind::Date | Kind::Uuid);
        let mut texts = Vec::new();
        for value in values {
            let (text, is_bare) = match value {
                Literal::Text(text) => (text, false),
                Literal::Bare(text) => (text, true),
            };
            if is_bare && is_of_text && !self.columns[place].is_array {
                self.wrong(at, text, "a text; put it in quotes");
            } else if !fits.0(text) {
                self.wrong(at, text, fits.1);
            }
            texts.push(text.clone());
        }
        self.no_twice(at, texts.iter().map(String::as_str));
        let slot = self.slot(place, Vec::new());
        Some(Filter::In { slot, texts, any_case: kind == Kind::Uuid })
    }
}
