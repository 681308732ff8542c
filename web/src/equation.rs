//! Equations: from a line of text to MathML, and the symbols in it that are settings.
//!
//! The text has names with subscripts and superscripts (`σ_max^(1/ρ)`), roots (`√(1 - β)`), and words
//! between backquotes. `;` and two spaces begin a new line, two spaces elsewhere are a gap.

use std::fmt::Write as _;

/// Symbols of equations that are settings, with the names of their fields.
const SYMBOLS: [(&str, &str); 10] = [
    ("N", "steps"),
    ("σ_max", "high"),
    ("σ_min", "low"),
    ("ρ", "rho"),
    ("η", "eta"),
    ("S_churn", "churn"),
    ("S_noise", "churn-noise"),
    ("w", "guidance"),
    ("p", "guidance-power"),
    ("seed", "seed"),
];

/// A part of an equation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Name(String),
    Number(String),
    Operator(char),
    Words(String),
    Gap,
    Row(Vec<Node>),
    Root(Box<Node>),
    /// A base with a subscript and a superscript.
    Scripts(Box<Node>, Option<Box<Node>>, Option<Box<Node>>),
}

/// Returns an equation as MathML, an element for each line.
pub fn mathml(text: &str) -> String {
    let mut out = String::new();
    for line in lines(text) {
        out += "<math display=\"block\">";
        parse(line).iter().for_each(|node| write(node, &mut out));
        out += "</math>";
    }
    out
}

/// Returns a symbol as MathML for a line of text.
pub fn mathml_inline(symbol: &str) -> String {
    let mut out = String::from("<math>");
    parse(symbol).iter().for_each(|node| write(node, &mut out));
    out + "</math>"
}

/// Returns the symbols of an equation that are settings, each with the name of its field.
pub fn settings(text: &str) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    lines(text).for_each(|line| names(&parse(line), &mut found));
    SYMBOLS.into_iter().filter(|(symbol, _)| found.iter().any(|name| name == symbol)).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(";  ").map(str::trim)
}

/// Collects the names in a row, with their subscripts. A name before a parenthesis is that of a
/// function.
fn names(row: &[Node], found: &mut Vec<String>) {
    for (i, node) in row.iter().enumerate() {
        let is_function = matches!(row.get(i + 1), Some(Node::Row(inner)) if is_fenced(inner));
        match node {
            Node::Name(name) if !is_function => found.push(name.clone()),
            Node::Row(inner) => names(inner, found),
            Node::Root(inner) => names(std::slice::from_ref(inner), found),
            Node::Scripts(base, below, above) => {
                match (&**base, below.as_deref()) {
                    (Node::Name(name), Some(Node::Name(below))) => {
                        found.push(format!("{name}_{below}"));
                    }
                    _ => names(std::slice::from_ref(base), found),
                }
                if let Some(above) = above {
                    names(std::slice::from_ref(above), found);
                }
            }
            _ => {}
        }
    }
}

fn is_fenced(row: &[Node]) -> bool {
    row.first() == Some(&Node::Operator('('))
}

fn parse(line: &str) -> Vec<Node> {
    let mut rest = line;
    let mut row = Vec::new();
    while let Some(node) = next(&mut rest) {
        row.push(node);
    }
    row
}

/// Takes the next part off the front of a line. Returns `None` at its end.
fn next(rest: &mut &str) -> Option<Node> {
    let trimmed = rest.trim_start();
    let gap = rest.len() - trimmed.len() > 1;
    *rest = trimmed;
    if trimmed.is_empty() {
        return None;
    }
    if gap {
        return Some(Node::Gap);
    }
    let base = atom(rest)?;
    let (mut below, mut above) = (None, None);
    loop {
        let first = rest.chars().next();
        let script = match first {
            Some('_' | '^') => {
                *rest = &rest[1..];
                Box::new(unfenced(atom(rest)?))
            }
            Some('²') => {
                *rest = &rest['²'.len_utf8()..];
                Box::new(Node::Number("2".into()))
            }
            Some('ᵀ') => {
                *rest = &rest['ᵀ'.len_utf8()..];
                Box::new(Node::Name("T".into()))
            }
            _ if below.is_none() && above.is_none() => return Some(base),
            _ => return Some(Node::Scripts(Box::new(base), below, above)),
        };
        *(if first == Some('_') { &mut below } else { &mut above }) = Some(script);
    }
}

/// Takes a name, a number, words, a root, something in parentheses or an operator.
fn atom(rest: &mut &str) -> Option<Node> {
    let first = rest.chars().next()?;
    let is_letter = |c: char| (c.is_alphabetic() && c != 'ᵀ') || c == '\'';
    if is_letter(first) {
        return Some(Node::Name(take(rest, is_letter)));
    }
    if first.is_ascii_digit() {
        return Some(Node::Number(take(rest, |c| c.is_ascii_digit() || c == '.')));
    }
    *rest = &rest[first.len_utf8()..];
    match first {
        '`' => {
            let words = take(rest, |c| c != '`');
            *rest = rest.strip_prefix('`').unwrap_or(rest);
            Some(Node::Words(words))
        }
        '√' => {
            let inner = atom(rest)?;
            Some(Node::Root(Box::new(unfenced(inner))))
        }
        '(' => {
            let mut inner = vec![Node::Operator('(')];
            while let Some(node) = next(rest) {
                let ends = node == Node::Operator(')')
                    || matches!(&node, Node::Scripts(base, ..) if **base == Node::Operator(')'));
                // Scripts after the parenthesis belong to all of it.
                if let (true, Node::Scripts(base, below, above)) = (ends, &node) {
                    inner.push((**base).clone());
                    let base = Box::new(Node::Row(inner));
                    return Some(Node::Scripts(base, below.clone(), above.clone()));
                }
                inner.push(node);
                if ends {
                    break;
                }
            }
            Some(Node::Row(inner))
        }
        other => Some(Node::Operator(other)),
    }
}

/// Takes the characters that satisfy `holds` off the front.
fn take(rest: &mut &str, holds: impl Fn(char) -> bool) -> String {
    let end = rest.find(|c| !holds(c)).unwrap_or(rest.len());
    let (taken, after) = rest.split_at(end);
    *rest = after;
    taken.into()
}

/// Removes the parentheses around a node, if there are any.
fn unfenced(node: Node) -> Node {
    match node {
        Node::Row(mut inner) if is_fenced(&inner) => {
            inner.remove(0);
            inner.pop();
            Node::Row(inner)
        }
        other => other,
    }
}

fn write(node: &Node, out: &mut String) {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut element = |name: &str, text: &str| {
        write!(out, "<{name}>{}</{name}>", escaped(text)).expect("a string");
    };
    match node {
        Node::Name(name) => element("mi", &name.replace('\'', "′")),
        Node::Number(number) => element("mn", number),
        Node::Operator('-') => element("mo", "−"),
        Node::Operator(operator) => element("mo", operator.encode_utf8(&mut [0; 4])),
        // MathML drops spaces at the ends.
        Node::Words(words) => element("mtext", &words.replace(' ', "\u{a0}")),
        Node::Gap => *out += "<mspace width=\"1.5em\"></mspace>",
        Node::Row(inner) => {
            *out += "<mrow>";
            inner.iter().for_each(|node| write(node, out));
            *out += "</mrow>";
        }
        Node::Root(inner) => {
            *out += "<msqrt>";
            write(inner, out);
            *out += "</msqrt>";
        }
        Node::Scripts(base, below, above) => {
            let name = match (below, above) {
                (Some(_), Some(_)) => "msubsup",
                (Some(_), None) => "msub",
                (None, _) => "msup",
            };
            write!(out, "<{name}>").expect("a string");
            let parts = [Some(base), below.as_ref(), above.as_ref()];
            parts.into_iter().flatten().for_each(|part| write(part, out));
            write!(out, "</{name}>").expect("a string");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::ALL;
    use crate::scene::FIELDS;
    use proptest::prelude::*;

    #[test]
    fn equations_become_mathml() {
        for (text, want) in [
            (
                "x_0 = σ_max n",
                "<msub><mi>x</mi><mn>0</mn></msub><mo>=</mo><msub><mi>σ</mi><mi>max</mi></msub><mi>n</mi>",
            ),
            ("√(1 - β)", "<msqrt><mrow><mn>1</mn><mo>−</mo><mi>β</mi></mrow></msqrt>"),
            ("σ'²", "<msup><mi>σ′</mi><mn>2</mn></msup>"),
            ("K_aᵀ", "<msubsup><mi>K</mi><mi>a</mi><mi>T</mi></msubsup>"),
            ("(a)^p", "<msup><mrow><mo>(</mo><mi>a</mi><mo>)</mo></mrow><mi>p</mi></msup>"),
            ("a^(1/ρ)", "<msup><mi>a</mi><mrow><mn>1</mn><mo>/</mo><mi>ρ</mi></mrow></msup>"),
            (
                "`log-SNR: `a < 0.5",
                "<mtext>log-SNR:\u{a0}</mtext><mi>a</mi><mo>&lt;</mo><mn>0.5</mn>",
            ),
            ("a,  b", "<mi>a</mi><mo>,</mo><mspace width=\"1.5em\"></mspace><mi>b</mi>"),
        ] {
            assert_eq!(mathml(text), format!("<math display=\"block\">{want}</math>"), "{text}");
        }
        assert_eq!(mathml("a;  b").matches("<math ").count(), 2);
    }

    #[test]
    fn symbols_are_those_of_settings() {
        let found = |text| settings(text).iter().map(|(_, field)| *field).collect::<Vec<_>>();
        assert_eq!(found("σ_i = (σ_max^(1/ρ) + i/(N-1))"), ["steps", "high", "rho"]);
        assert_eq!(found("√(S_churn / N)^p"), ["steps", "churn", "guidance-power"]);
        // The normal distribution is not the number of steps.
        assert!(found("ε ~ N(0, I)").is_empty());
        for (symbol, field) in SYMBOLS {
            let known = FIELDS.iter().any(|known| known.name == field);
            assert!(known || field == "seed", "{symbol}: no field {field}");
        }
    }

    /// Every parenthesis and tag of the page's own equations is closed, and no word is lost.
    #[test]
    fn the_equations_of_the_page_are_whole() {
        for topic in ALL {
            let markup = mathml(topic.equation);
            let mut open = Vec::new();
            for part in markup.split('<').skip(1) {
                let tag = part.split(['>', ' ']).next().expect("a tag");
                match tag.strip_prefix('/') {
                    Some(closed) => assert_eq!(open.pop(), Some(closed), "{}", topic.id),
                    None => open.push(tag),
                }
            }
            assert!(open.is_empty(), "{}: {open:?}", topic.id);
            let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
            let tagless: String =
                markup.split('<').filter_map(|part| part.split_once('>')).map(|(_, t)| t).collect();
            assert_eq!(letters(&tagless), letters(topic.equation), "{}", topic.id);
            assert_eq!(markup.matches("<mo>(</mo>").count(), markup.matches("<mo>)</mo>").count());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "[a-zσρ_^()√`²ᵀ' ;,0-9+-]{0,40}") {
            mathml(&text);
            settings(&text);
        }
    }
}
