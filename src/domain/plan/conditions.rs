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
            Condition::Unread(parts) => {
                for part in parts {
                    self.condition(at, part, depth);
                }
                None
            }
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
        let is_unread = ["equals", "in"].iter().any(|name| self.from.is_unread(&format!("{at}.{name}")));
        if values.is_empty() && !is_unread {
            self.wrong(at, "", "at least one value");
        }
        let texts: Vec<_> = values.iter().map(|(Literal::Text(text) | Literal::Bare(text))| text.clone()).collect();
        self.no_twice(at, texts.iter().map(String::as_str));
        let place = self.place(&format!("{at}.column"), column)?;
        let (kind, is_array) = self.type_of(place)?;
        for value in values {
            self.fits(at, kind, is_array, value);
        }
        let slot = self.slot(place, Vec::new());
        Some(Filter::In { slot, texts, any_case: kind == Kind::Uuid })
    }

    /// Whether a column can be compared with a value.
    fn fits(&mut self, at: &str, kind: Kind, is_array: bool, value: &Literal) {
        let (text, is_bare) = match value {
            Literal::Text(text) => (text, false),
            Literal::Bare(text) => (text, true),
        };
        let (fits, expected): (fn(&str) -> bool, &str) = match kind {
            _ if is_array => (|_| false, "a column that is no array"),
            Kind::Text | Kind::Date | Kind::Uuid if is_bare => (|_| false, "a text; put it in quotes"),
            Kind::Text => (|_| true, "a string"),
            Kind::Integer | Kind::Bigint => (is_integer, "an integer"),
            Kind::Boolean => (|text| matches!(text, "true" | "false"), "true or false"),
            Kind::Date => (is_date, "a date YYYY-MM-DD that there is"),
            Kind::Uuid => (|text| Kind::Uuid.accepts(&format!("\"{text}\"")), "a UUID"),
            Kind::Numeric | Kind::Timestamp | Kind::Json | Kind::Scalar => {
                (|_| false, "a column of type string, integer, bigint, boolean, date or uuid; of others only is_null")
            }
        };
        if !fits(text) {
            self.wrong(at, text, expected);
        }
    }
}
