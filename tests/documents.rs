//! Holds the documents against themselves and the tree: tables that are whole, links that lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the tree with its text. What is built, and what tools have put here, is none of it.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut todo = vec![root()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 8, "the documents are not where this test looks for them");
    found
}

/// Lines with their numbers, without those of fenced and of indented code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.starts_with("```");
        fenced ^= fence;
        !fenced && !fence && !line.starts_with("    ")
    })
}

/// How many cells a line of a table has: a bar that is meant as text is escaped, within code too.
fn cells(line: &str) -> Option<usize> {
    let inside = line.trim_end().strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.replace("\\|", "").matches('|').count() + 1)
}

#[test]
fn every_row_of_a_table_has_as_many_cells_as_its_header_and_stands_there_once() {
    let (mut wrong, mut rows) = (Vec::new(), 0);
    for (path, text) in documents() {
        let mut table: Option<(usize, BTreeSet<&str>)> = None;
        for (number, line) in prose(&text) {
            if !line.starts_with('|') {
                table = None;
                continue;
            }
            rows += 1;
            let count = cells(line);
            let (header, seen) = table.get_or_insert_with(|| (count.unwrap_or_default(), BTreeSet::new()));
            if count != Some(*header) || !seen.insert(line) {
                wrong.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(rows > 100, "the tables were not found: {rows} rows");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a heading is called in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).map(|(_, line)| line).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Where the links of a line lead, those to other sites apart.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://"))
}

/// Whether there is a file, and in it the heading, if the link names one.
fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
    let target = if file.is_empty() { document.to_path_buf() } else { document.with_file_name(file) };
    match heading {
        None => target.exists(),
        Some(heading) => fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(heading)),
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let (mut dead, mut count) = (Vec::new(), 0);
    for (path, text) in documents() {
        for (number, line) in prose(&text) {
            for link in links(line) {
                count += 1;
                if !leads_somewhere(&path, link) {
                    dead.push(format!("{}:{number}: {link}", path.display()));
                }
            }
        }
    }
    assert!(count > 50, "the links were not found: {count}");
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn cells_and_anchors_are_told() {
    assert_eq!(cells("| a | b \\| c | `d` |"), Some(3));
    assert_eq!(cells("| not closed"), None);
    assert_eq!(anchor(" Where things live, and why"), "where-things-live-and-why");
    assert!(!leads_somewhere(&root().join("README.md"), "docs/nothing.md"));
    assert!(!leads_somewhere(&root().join("README.md"), "#no-such-heading"));
}
