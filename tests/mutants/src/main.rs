//! Builds all mutants into one copy of the sources (mutant schemata): where cargo-mutants would write `a != b` for
//! `a == b` and build again, the copy says `(if crate::mutation::is(17) { (a) != (b) } else { (a == b) })`, and the
//! environment of a test decides which mutant is awake. So everything is built once instead of once for each mutant.
//!
//! ```text
//! baton-mutants MUTANTS.json DROPPED SOURCE_DIR COPY_DIR
//! ```
//!
//! `MUTANTS.json` is what `cargo mutants --list --json` says; a mutant's number is its place in it, from 1. `DROPPED` lists
//! numbers that do not compile. Numbers that cannot be said by a switch are printed, one a line, with the reason.
//!
//! Around each piece stands `/*<17*/ ... /*>17*/`, so that an error of the compiler can be laid at a mutant's door.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::ops::Range;
use std::{env, fs, process};

use proc_macro2::{LineColumn, Span};
use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

struct Mutant {
    number: usize,
    replacement: String,
}

/// By file; then by genre, line and column (from 1).
type ByPlace = HashMap<(String, usize, usize), Vec<Mutant>>;

/// Something to be written differently.
enum Edit {
    /// One of several expressions, all in the place of the right one; what stands before them.
    Choice(String, Vec<(usize, String)>),
    /// Before a function's first statement: number and what it returns.
    Return(Vec<(usize, String)>),
    /// After a match arm's pattern.
    ArmGuard(usize),
    /// Around the guard that a match arm has already.
    FurtherGuard(usize),
    /// Around an iterator that is returned.
    Empty(usize),
}

struct Node {
    range: Range<usize>,
    edit: Edit,
}

struct File<'a> {
    text: &'a str,
    mutants: ByPlace,
    nodes: Vec<Node>,
    impossible: BTreeMap<usize, &'static str>,
}

impl File<'_> {
    fn taken(&mut self, genre: &str, at: LineColumn) -> Vec<Mutant> {
        self.mutants.remove(&(genre.to_owned(), at.line, at.column + 1)).unwrap_or_default()
    }

    fn source(&self, span: Span) -> String {
        self.text[span.byte_range()].to_owned()
    }

    fn choose(&mut self, span: Span, choices: Vec<(usize, String)>) {
        if !choices.is_empty() {
            self.nodes.push(Node { range: span.byte_range(), edit: Edit::Choice(String::new(), choices) });
        }
    }

    fn take_body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let Some(first) = block.stmts.first() else { return };
        let mutants = self.taken("FnValue", first.span().start());
        if matches!(&signature.output, syn::ReturnType::Type(_, output) if matches!(**output, syn::Type::ImplTrait(_))) {
            return self.take_iterator(mutants, block);
        }
        let at = first.span().byte_range().start;
        if !mutants.is_empty() {
            let returns = mutants.into_iter().map(|mutant| (mutant.number, mutant.replacement)).collect();
            self.nodes.push(Node { range: at..at, edit: Edit::Return(returns) });
        }
    }

    /// One function cannot return values of two types, but an iterator may end before it has begun.
    fn take_iterator(&mut self, mutants: Vec<Mutant>, block: &syn::Block) {
        for mutant in mutants {
            match block.stmts.last() {
                Some(syn::Stmt::Expr(last, None)) if mutant.replacement.contains("iter::empty()") => {
                    self.nodes.push(Node { range: last.span().byte_range(), edit: Edit::Empty(mutant.number) });
                }
                _ => {
                    self.impossible.insert(mutant.number, "returns `impl Trait`");
                }
            }
        }
    }

    /// The text of `range`, with all switches or without any.
    fn written(&self, range: Range<usize>, nodes: &[Node]) -> String {
        let mut out = String::new();
        let (mut at, mut index) = (range.start, 0);
        while let Some(node) = nodes.get(index) {
            index += 1;
            out.push_str(&self.text[at..node.range.start]);
            let inner = nodes[index..].iter().take_while(|inner| inner.range.start < node.range.end).count();
            let kept = self.written(node.range.clone(), &nodes[index..index + inner]);
            index += inner;
            at = node.range.end;
            let written = match &node.edit {
                Edit::Choice(label, choices) => {
                    out.push_str(label);
                    out.push('(');
                    for (number, text) in choices {
                        let _ = write!(out, "if crate::mutation::is({number}) {{ /*<{number}*/ {text} /*>{number}*/ }} else ");
                    }
                    write!(out, "{{ ({kept}) }})")
                }
                Edit::Return(returns) => returns.iter().try_for_each(|(number, text)| {
                    write!(out, "if crate::mutation::is({number}) {{ /*<{number}*/ return {text}; /*>{number}*/ }} ")
                }),
                Edit::ArmGuard(number) => write!(out, " /*<{number}*/ if !crate::mutation::is({number}) /*>{number}*/ "),
                Edit::Empty(number) => write!(
                    out,
                    "::std::iter::Iterator::take({kept}, if crate::mutation::is({number}) {{ /*<{number}*/ 0 /*>{number}*/ }} else {{ usize::MAX }})"
                ),
                Edit::FurtherGuard(number) => write!(out, "!crate::mutation::is({number}) && ({kept})"),
            };
            written.expect("a string takes everything");
        }
        out.push_str(&self.text[at..range.end]);
        out
    }
}

/// `let` stands in chains of conditions only, never in parentheses.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for File<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.take_body(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.take_body(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.take_body(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        let mutants = self.taken("BinaryOperator", binary.op.span().start());
        if has_let(&binary.left) || has_let(&binary.right) {
            self.impossible.extend(mutants.iter().map(|mutant| (mutant.number, "unviable: `let` in a chain")));
        } else {
            let (left, right) = (self.source(binary.left.span()), self.source(binary.right.span()));
            let choices = mutants.into_iter().map(|mutant| (mutant.number, format!("({left}) {} ({right})", mutant.replacement)));
            self.choose(binary.span(), choices.collect());
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let mutants = self.taken("UnaryOperator", unary.op.span().start());
        let operand = self.source(unary.expr.span());
        let choices = mutants.into_iter().map(|mutant| (mutant.number, format!("{} ({operand})", mutant.replacement)));
        self.choose(unary.span(), choices.collect());
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        for mutant in self.taken("MatchArm", arm.span().start()) {
            match &arm.guard {
                None => {
                    let at = arm.pat.span().byte_range().end;
                    self.nodes.push(Node { range: at..at, edit: Edit::ArmGuard(mutant.number) });
                }
                Some((_, guard)) if has_let(guard) => {
                    self.impossible.insert(mutant.number, "an arm whose guard has `let`");
                }
                Some((_, guard)) => {
                    self.nodes.push(Node { range: guard.span().byte_range(), edit: Edit::FurtherGuard(mutant.number) });
                }
            }
        }
        if let Some((_, guard)) = &arm.guard {
            let mutants = self.taken("MatchArmGuard", guard.span().start());
            if has_let(guard) {
                self.impossible.extend(mutants.iter().map(|mutant| (mutant.number, "a guard that has `let`")));
            } else {
                let choices = mutants.into_iter().map(|mutant| (mutant.number, mutant.replacement));
                self.choose(guard.span(), choices.collect());
            }
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, expression: &'ast syn::ExprStruct) {
        for field in &expression.fields {
            for mutant in self.taken("StructField", field.span().start()) {
                let (Some(rest), syn::Member::Named(name)) = (&expression.rest, &field.member) else {
                    self.impossible.insert(mutant.number, "a field without a rest");
                    continue;
                };
                let instead = format!("({}).{name}", self.source(rest.span()));
                // The short form has no expression of its own to be replaced.
                let label = field.colon_token.is_none().then(|| format!("{name}: "));
                let span = if label.is_some() { field.span() } else { field.expr.span() };
                let edit = Edit::Choice(label.unwrap_or_default(), vec![(mutant.number, instead)]);
                self.nodes.push(Node { range: span.byte_range(), edit });
            }
        }
        visit::visit_expr_struct(self, expression);
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [list, dropped, from, to] = arguments.as_slice() else {
        eprintln!("usage: baton-mutants MUTANTS.json DROPPED SOURCE_DIR COPY_DIR");
        process::exit(2);
    };
    let list: Value =
        serde_json::from_str(&fs::read_to_string(list).expect("the list")).expect("JSON of `cargo mutants --list --json`");
    let dropped = fs::read_to_string(dropped).unwrap_or_default();
    let dropped: HashSet<usize> = dropped.split_whitespace().map(|word| word.parse().expect("a number")).collect();

    let mut files: BTreeMap<String, ByPlace> = BTreeMap::new();
    for (index, mutant) in list.as_array().expect("a list").iter().enumerate() {
        let number = index + 1;
        if dropped.contains(&number) {
            continue;
        }
        let text = |key: &str| mutant[key].as_str().expect("text").to_owned();
        let place = |key: &str| mutant["span"]["start"][key].as_u64().expect("a number") as usize;
        let by_place = files.entry(text("file")).or_default();
        let at = by_place.entry((text("genre"), place("line"), place("column"))).or_default();
        at.push(Mutant { number, replacement: text("replacement") });
    }

    for (name, mutants) in files {
        let text = fs::read_to_string(format!("{from}/{name}")).expect("a source");
        let mut file = File { text: &text, mutants, nodes: Vec::new(), impossible: BTreeMap::new() };
        file.visit_file(&syn::parse_file(&text).expect("Rust"));
        // The outer before the inner; what has no length of its own stands before what begins there.
        let mut nodes = std::mem::take(&mut file.nodes);
        nodes.sort_by_key(|node| (node.range.start, !node.range.is_empty(), std::cmp::Reverse(node.range.end)));
        fs::write(format!("{to}/{name}"), file.written(0..text.len(), &nodes)).expect("a copy");
        for (number, reason) in &file.impossible {
            println!("{number}\t{reason}");
        }
        for mutant in file.mutants.values().flatten() {
            println!("{}\tnot found in the syntax", mutant.number);
        }
    }
}
