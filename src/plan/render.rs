//! The graph for people and programs: text, JSON, Graphviz and Mermaid.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::{Plan, Preview, State};
use crate::types::human;

/// A form in which a graph is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A table by image, without the skipped stages.
    Text,
    /// The same with the skipped stages and why they are.
    Full,
    /// JSON with every field.
    Json,
    /// Graphviz' dot(1).
    Dot,
    /// A Mermaid flow chart.
    Mermaid,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "full" => Ok(Self::Full),
            "json" => Ok(Self::Json),
            "dot" => Ok(Self::Dot),
            "mermaid" => Ok(Self::Mermaid),
            other => Err(format!("unknown graph format `{other}`: text, full, json, dot or mermaid")),
        }
    }
}

/// Prints the nodes with their states. `width` is that of the terminal in columns, which the lines for people are folded to.
pub fn render(plan: &Plan, nodes: &[Preview], format: Format, width: Option<usize>) -> String {
    match format {
        Format::Text => {
            let skipped = nodes.len() - shown(nodes).count();
            let rest = match skipped {
                0 => String::new(),
                1 => "\n1 stage is skipped: see --format full\n".to_owned(),
                _ => format!("\n{skipped} stages are skipped: see --format full\n"),
            };
            text(plan, shown(nodes), width) + &rest
        }
        Format::Full => text(plan, nodes.iter(), width),
        Format::Json => format!("{:#}\n", json(plan, nodes)),
        Format::Dot => dot(plan, nodes),
        Format::Mermaid => mermaid(plan, nodes),
    }
}

fn word(state: &State) -> &'static str {
    match state {
        State::Cached(_) => "cached",
        State::Current => "current",
        State::Run(_) => "run",
        State::MayRun(_) => "may run",
        State::Skipped(_) => "skipped",
    }
}

fn reasons(state: &State) -> Vec<String> {
    match state {
        State::Run(reasons) | State::MayRun(reasons) => reasons.iter().map(ToString::to_string).collect(),
        State::Skipped(why) => vec![why.clone()],
        State::Cached(_) | State::Current => Vec::new(),
    }
}

/// How many columns there must be beside the others for the reasons; with fewer they stand below.
const BESIDE: usize = 32;

/// How far what stands below is moved in.
const BELOW: usize = 6;

fn text<'a>(plan: &Plan, nodes: impl Iterator<Item = &'a Preview> + Clone, width: Option<usize>) -> String {
    let cells = |preview: &Preview| {
        [
            plan.graph[preview.id].stage.clone(),
            word(&preview.state).to_owned(),
            preview.key.map(|key| key.short()).unwrap_or_default(),
            cost(preview),
        ]
    };
    let mut widths = [0; 4];
    for preview in nodes.clone() {
        for (width, cell) in widths.iter_mut().zip(cells(preview)) {
            *width = cell.chars().count().max(*width);
        }
    }
    // Where there is no room for all columns, the key goes first and then the cost.
    for column in [2, 3] {
        let taken: usize = widths.iter().filter(|width| **width > 0).map(|width| width + 2).sum();
        if width.is_some_and(|width| taken > width)
            && let Some(width) = widths.get_mut(column)
        {
            *width = 0;
        }
    }
    let mut out = String::new();
    let mut group = None;
    for preview in nodes {
        let images: Vec<&str> = plan.graph[preview.id].images.iter().map(String::as_str).collect();
        let images = images.join(", ");
        if group.as_ref() != Some(&images) {
            if group.is_some() {
                out.push('\n');
            }
            for line in fold(&images, width.unwrap_or(usize::MAX)) {
                let _ = writeln!(out, "{line}");
            }
            group = Some(images);
        }
        let mut line = String::new();
        for (cell, width) in cells(preview).iter().zip(widths).filter(|(_, width)| *width > 0) {
            let _ = write!(line, "  {cell:<width$}");
        }
        line.push_str("  ");
        let mut why = reasons(&preview.state);
        if why.len() > 4 {
            let more = why.len() - 3;
            why.truncate(3);
            why.push(format!("{more} more"));
        }
        let (column, why) = (line.chars().count(), why.join("; "));
        let left = width.map_or(usize::MAX, |width| width.saturating_sub(column));
        let column = if left >= BESIDE || why.chars().count() <= left {
            column
        } else {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(BELOW);
            BELOW
        };
        let left = width.map_or(usize::MAX, |width| width.saturating_sub(column));
        for folded in fold(&why, left) {
            let _ = writeln!(out, "{}", (line + folded.as_str()).trim_end());
            line = " ".repeat(column);
        }
    }
    out
}

/// What the last run took: time, and the size of what it made.
fn cost(preview: &Preview) -> String {
    let Some(last) = &preview.last else { return String::new() };
    let time = human::duration(Duration::from_millis(last.duration_ms));
    if last.size == 0 { time } else { format!("{time}, {}", human::bytes(last.size)) }
}

/// A text in lines of at most this many columns, but for longer words; one line where there is no text.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn json(plan: &Plan, nodes: &[Preview]) -> serde_json::Value {
    let list: Vec<serde_json::Value> = nodes
        .iter()
        .map(|preview| {
            let node = &plan.graph[preview.id];
            let needs: Vec<serde_json::Value> = plan
                .needs(preview.id)
                .into_iter()
                .map(|(id, edge)| json!({ "node": id.index(), "output": edge.output, "input": edge.input }))
                .collect();
            let record = match &preview.state {
                State::Cached(record) => Some(record),
                _ => preview.last.as_ref(),
            };
            json!({
                "id": preview.id.index(),
                "stage": node.stage,
                "about": node.decl.about,
                "images": node.images,
                "state": word(&preview.state),
                "reasons": reasons(&preview.state),
                "key": preview.key,
                "needs": needs,
                "inputs": node.inputs,
                "duration_ms": record.map(|record| record.duration_ms),
                "size": record.map(|record| record.size),
            })
        })
        .collect();
    json!({ "version": 1, "goals": plan.goals, "nodes": list })
}

/// The nodes without the skipped ones.
fn shown(nodes: &[Preview]) -> impl Iterator<Item = &Preview> + Clone {
    nodes.iter().filter(|preview| !matches!(preview.state, State::Skipped(_)))
}

fn label(plan: &Plan, preview: &Preview) -> (String, String) {
    let node = &plan.graph[preview.id];
    let images: Vec<&str> = node.images.iter().map(String::as_str).collect();
    (node.stage.clone(), images.join(", "))
}

fn dot(plan: &Plan, nodes: &[Preview]) -> String {
    let mut out =
        String::from("digraph mkosi {\n  rankdir=LR;\n  node [shape=box, style=filled, fontname=\"sans\"];\n");
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    for preview in shown(nodes) {
        let (stage, images) = label(plan, preview);
        let colour = match preview.state {
            State::Cached(_) | State::Current => "#d5e8d4",
            State::MayRun(_) => "#fff2cc",
            _ => "#f8cecc",
        };
        let why = reasons(&preview.state).join("\n");
        let _ = writeln!(
            out,
            "  n{} [label=\"{}\\n{}\", fillcolor=\"{colour}\", tooltip=\"{}\"];",
            preview.id.index(),
            escape(&stage),
            escape(&images),
            escape(&why)
        );
    }
    for preview in shown(nodes) {
        for (need, edge) in plan.needs(preview.id) {
            let _ =
                writeln!(out, "  n{} -> n{} [label=\"{}\"];", need.index(), preview.id.index(), escape(&edge.output));
        }
    }
    out.push_str("}\n");
    out
}

fn mermaid(plan: &Plan, nodes: &[Preview]) -> String {
    let mut out = String::from("flowchart LR\n");
    // Labels are HTML, `#` starts an entity, and a label ends with its line.
    let escape = |text: &str| {
        let entities = [("#", "#35;"), ("\"", "#quot;"), ("<", "#lt;"), (">", "#gt;"), ("|", "#124;"), ("\n", " ")];
        entities.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    for preview in shown(nodes) {
        let (stage, images) = label(plan, preview);
        let class = word(&preview.state).replace(' ', "-");
        let _ = writeln!(out, "  n{}[\"{}<br/>{}\"]:::{class}", preview.id.index(), escape(&stage), escape(&images));
    }
    for preview in shown(nodes) {
        for (need, edge) in plan.needs(preview.id) {
            let _ = writeln!(out, "  n{} -->|{}| n{}", need.index(), escape(&edge.output), preview.id.index());
        }
    }
    out.push_str("  classDef cached fill:#d5e8d4\n  classDef current fill:#d5e8d4\n");
    out.push_str("  classDef run fill:#f8cecc\n  classDef may-run fill:#fff2cc\n");
    out
}
