//! Rows of a declared table, made up: what its columns say a row could be.

use fastrand::Rng;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::column::Kind;
use super::declared::{Column, DeclaredTable, Plan};
use super::filter::Filter;
use super::json::push_string;
use super::layout::{Token, ValueSource};

/// A row that could be.
#[derive(Debug, Clone)]
pub struct Specimen {
    /// The schema it would be of.
    pub schema: String,
    /// Its columns in the table's order, each with its value as JSON.
    pub columns: Vec<(String, String)>,
}

impl Specimen {
    /// The record as Sequin would send it.
    pub fn record(&self) -> String {
        object(&self.columns)
    }
}

/// Columns with their values as a JSON object.
fn object(columns: &[(String, String)]) -> String {
    let mut out = vec![b'{'];
    for (name, value) in columns {
        if out.len() > 1 {
            out.push(b',');
        }
        push_string(&mut out, name);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// Tenants of rows that are made up.
const TENANTS: u64 = 3;
/// Columns that an update changes at most.
const MOST_CHANGED: usize = 3;
const NAMES: [&str; 6] = ["Siti", "Budi", "Ayu", "Agus", "Dewi 🌺", "Rizky"];
const WORDS: [&str; 6] =
    ["halo", "pesanan saya", "baik, terima kasih", "sudah dikirim", "besok pagi", "lihat \"foto\""];

/// What a row is made up of.
struct Making<'p, 'r> {
    plan: &'p Plan,
    random: &'r mut Rng,
    /// The row: its key follows from it.
    row: u64,
    time: Timestamp,
    /// The tenant, by number.
    tenant: u64,
}

impl DeclaredTable {
    /// Row `number`, as it might stand in the table at `time`. The same number has the same key; all else is random, within
    /// its type, and often such that filter and tenant guard let it pass.
    pub fn specimen(&self, random: &mut Rng, number: u64, time: Timestamp) -> Specimen {
        let tenant = number % TENANTS;
        Making { plan: self.plan(), random, row: number, time, tenant }.specimen()
    }

    /// Row `number` after an update at `time`, and the former values of what was changed, as JSON: of one to three columns,
    /// none of which identifies the row or routes it.
    pub fn changed(&self, row: &Specimen, random: &mut Rng, number: u64, time: Timestamp) -> (Specimen, String) {
        let tenant = number % TENANTS;
        Making { plan: self.plan(), random, row: number, time, tenant }.changed(row)
    }
}

impl Making<'_, '_> {
    fn specimen(mut self) -> Specimen {
        let plan = self.plan;
        let columns = plan.columns.iter().enumerate();
        let columns = columns.map(|(place, column)| (column.name.clone(), self.value(place, column))).collect();
        Specimen { schema: self.schema(), columns }
    }

    fn changed(mut self, row: &Specimen) -> (Specimen, String) {
        let plan = self.plan;
        let mut places: Vec<usize> = (0..plan.columns.len()).filter(|place| !self.stays(*place)).collect();
        self.random.shuffle(&mut places);
        let wanted = self.random.usize(1..=MOST_CHANGED);
        let (mut changed, mut former) = (row.clone(), Vec::new());
        for place in places {
            let new = self.value(place, &plan.columns[place]);
            let (name, value) = &mut changed.columns[place];
            // There are columns that hold one value only.
            if *value != new {
                former.push((name.clone(), std::mem::replace(value, new)));
            }
            if former.len() == wanted {
                break;
            }
        }
        (changed, object(&former))
    }

    /// Whether a column keeps its value as long as its row is there.
    fn stays(&self, place: usize) -> bool {
        let (layout, column) = (&self.plan.layout, &self.plan.columns[place]);
        let routes = layout.values.iter().any(|value| match value.source {
            ValueSource::Slot(slot) => usize::from(self.plan.slots[slot].column) == place,
            ValueSource::Schema(_) | ValueSource::Constant(_) => false,
        });
        column.own || routes || self.tenant_column() == Some(place) || column.name.starts_with("created")
    }

    /// The column that tells tenants apart, or is tied to the schema's name, if it is one.
    fn tenant_column(&self) -> Option<usize> {
        let layout = &self.plan.layout;
        let first = match layout.subject.first() {
            Some(Token::Value(value)) => Some(*value),
            _ => None,
        };
        let value = layout.guard.as_ref().map(|(value, _)| *value).or(first)?;
        match layout.values[value].source {
            ValueSource::Slot(slot) => {
                let slot = &self.plan.slots[slot];
                slot.pointer.is_empty().then_some(usize::from(slot.column))
            }
            ValueSource::Schema(_) | ValueSource::Constant(_) => None,
        }
    }

    /// The tenant as the column has it that tells tenants apart.
    fn tenant_text(&self) -> String {
        let number = 1001 + self.tenant;
        match self.tenant_column().map(|place| self.plan.columns[place].kind) {
            Some(Kind::Integer | Kind::Bigint | Kind::Scalar | Kind::Numeric) => number.to_string(),
            Some(Kind::Uuid) => uuid(number),
            _ => format!("CID{number}"),
        }
    }

    fn schema(&self) -> String {
        let layout = &self.plan.layout;
        let tenant = self.tenant_text();
        if let Some((value, pattern)) = &layout.guard {
            return match &layout.values[*value].source {
                ValueSource::Constant(text) => pattern.written(text),
                _ => pattern.written(&tenant),
            };
        }
        let by_value = layout.values.iter().find_map(|value| match &value.source {
            ValueSource::Schema(pattern) => Some(pattern.written(&tenant)),
            _ => None,
        });
        by_value.unwrap_or_else(|| match layout.schema.written("") {
            any if any.is_empty() => format!("daisi_{tenant}"),
            _ => layout.schema.written(&tenant),
        })
    }

    fn value(&mut self, place: usize, column: &Column) -> String {
        if self.tenant_column() == Some(place) {
            return written(column.kind, &self.tenant_text());
        }
        if let Some(value) = self.wanted(place, column) {
            return value;
        }
        let routes = self.plan.slots.iter().any(|slot| usize::from(slot.column) == place);
        if column.nullable && !routes && self.random.u8(0..12) == 0 {
            return "null".to_owned();
        }
        if column.is_array {
            let count = self.random.usize(0..4);
            let elements: Vec<_> = (0..count).map(|_| self.single(column)).collect();
            return format!("[{}]", elements.join(","));
        }
        match column.kind {
            Kind::Json => self.json(place).to_string(),
            _ => self.single(column),
        }
    }

    /// A value that the filter asks for, most of the time.
    fn wanted(&mut self, place: usize, column: &Column) -> Option<String> {
        let leaves = self.plan.layout.filter.as_ref()?.asked_for();
        let column_of = |slot: usize| usize::from(self.plan.slots[slot].column);
        let wanted = leaves.into_iter().flat_map(|leaf| match leaf {
            Filter::In { slot, texts, .. } if column_of(*slot) == place => {
                texts.iter().map(|text| written(column.kind, text)).collect()
            }
            Filter::IsNull(slot) if column_of(*slot) == place && column.nullable => vec!["null".to_owned()],
            _ => Vec::new(),
        });
        let wanted: Vec<String> = wanted.collect();
        (!wanted.is_empty() && self.random.u8(0..4) > 0).then(|| wanted[self.random.usize(0..wanted.len())].clone())
    }

    /// A JSON value that holds what is taken from within it.
    fn json(&mut self, place: usize) -> Value {
        let mut value = json!({ "source": self.pick(&["app", "web", "import"]), "attempt": self.random.u8(1..4) });
        let plan = self.plan;
        for slot in plan.slots.iter().filter(|slot| usize::from(slot.column) == place) {
            let text = format!("{}-{}", slot.pointer.last().map_or("id", String::as_str), self.random.u16(1..400));
            put(&mut value, &slot.pointer, text);
        }
        value
    }

    /// A value of a column's type, or of its elements'.
    fn single(&mut self, column: &Column) -> String {
        let (name, is_own) = (column.name.as_str(), column.own);
        match column.kind {
            Kind::Integer | Kind::Bigint | Kind::Scalar if is_own => (9_007_199_254_740_993 + self.row).to_string(),
            Kind::Integer | Kind::Bigint | Kind::Scalar => self.random.u32(0..200).to_string(),
            Kind::Numeric => format!("{}.{:02}", self.random.u32(1..500_000), self.random.u8(0..100)),
            Kind::Boolean => self.random.bool().to_string(),
            Kind::Uuid if is_own => json!(uuid(self.row)).to_string(),
            Kind::Uuid => json!(uuid(self.random.u64(..))).to_string(),
            Kind::Date => json!(self.time.to_string().get(..10)).to_string(),
            Kind::Timestamp => json!(self.time.to_string()).to_string(),
            Kind::Json => json!({ "n": self.random.u8(..) }).to_string(),
            Kind::Text if is_own => json!(format!("{name}-{}", self.row)).to_string(),
            Kind::Text => json!(self.text(name)).to_string(),
        }
    }

    /// A text as a column of this name might hold it.
    fn text(&mut self, name: &str) -> String {
        let has = |part: &str| name.contains(part);
        let number = self.random.u16(1..400);
        if let Some(of) = name.strip_suffix("_id") {
            return format!("{of}-{}", number % 40);
        }
        match () {
            () if has("phone") => format!("62812{number:07}"),
            () if has("mail") => format!("siti{number}@example.com"),
            () if has("jid") => format!("62812{number:07}@s.whatsapp.net"),
            () if has("name") || has("assigned") => self.pick(&NAMES).to_owned(),
            () if has("url") || has("avatar") => format!("https://cdn.example.com/{number}.jpg"),
            () if has("status") => self.pick(&["open", "pending", "closed"]).to_owned(),
            () => self.pick(&WORDS).to_owned(),
        }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.random.usize(0..from.len())]
    }
}

/// A text as a value of this type.
fn written(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Integer | Kind::Bigint | Kind::Numeric | Kind::Boolean => text.to_owned(),
        _ => json!(text).to_string(),
    }
}

/// A UUID of version 7 by number.
fn uuid(number: u64) -> String {
    format!("018f3a00-{:04x}-7d8e-9f00-{:012x}", number >> 48, number & 0xffff_ffff_ffff)
}

/// Puts a text where a pointer shows; what is in its way gives way.
fn put(value: &mut Value, pointer: &[String], text: String) {
    match pointer.split_first() {
        None => *value = Value::String(text),
        Some((step, rest)) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            if let Value::Object(members) = value {
                put(members.entry(step.clone()).or_insert(Value::Null), rest, text);
            }
        }
    }
}
