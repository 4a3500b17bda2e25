use super::*;

fn new() -> NewSidecar {
    NewSidecar {
        name: "outrider".to_owned(),
        process_types: vec!["web".to_owned()],
        command: "exec ./outrider run".to_owned(),
        memory: "64M".to_owned(),
        variable: None,
    }
}

fn with_variable() -> NewSidecar {
    NewSidecar {
        process_types: vec!["web".to_owned(), "worker".to_owned()],
        variable: Some(("OUTRIDER_PROCESS_TYPES", "web,worker".to_owned())),
        ..new()
    }
}

/// Names, and texts before and after: what is between the marks is added.
fn shapes() -> Vec<(&'static str, String, String)> {
    let all = include_str!("shapes.txt").split("=== ").skip(1);
    let shape = |one: &'static str| {
        let (name, marked) = one.split_once('\n').unwrap();
        let (head, rest) = marked.split_once('«').unwrap();
        let (added, tail) = rest.split_once('»').unwrap();
        (name, format!("{head}{tail}"), format!("{head}{added}{tail}"))
    };
    all.map(shape).collect()
}

/// Each shape of a manifest gets the entry and keeps every other byte, with any line ends.
#[test]
fn each_shape_of_a_manifest_gets_the_entry_and_nothing_else() {
    let shapes = shapes();
    assert!(shapes.len() >= 30);
    for (name, before, after) in &shapes {
        for (what, change) in [
            ("as it is", str::to_owned as fn(&str) -> String),
            ("CRLF", |text| text.replace('\n', "\r\n")),
            ("a byte order mark", |text| format!("\u{feff}{text}")),
            ("comments before it", |text| format!("# One.\n\n# Two.\n{text}")),
        ] {
            let added = add_sidecar(&change(before), 0, &new());
            assert_eq!(added, Ok(change(after)), "{name}, {what}");
        }
        // Where the file ends in the middle of a line, a line end is added before.
        let (cut, whole) = (before.trim_end(), after.trim_end());
        let added = add_sidecar(cut, 0, &new()).unwrap();
        assert_eq!(added.trim_end(), whole, "{name}, without an end");
        assert!(added.starts_with(cut) || after.find(cut).is_none(), "{name}");
    }
}

/// What is read back is the old manifest and the entry, seen by another way than that of `add_sidecar`.
#[test]
fn what_is_read_back_is_the_old_manifest_and_the_entry() {
    let entry = new().node().flow();
    let parts = |text: &str| {
        let root = Node::parse_as(Dialect::Manifest, text).unwrap();
        let Content::Map(entries) = &root.value else {
            panic!()
        };
        let mut rest = Vec::new();
        let mut sidecars = Vec::new();
        for one in entries.iter().filter(|one| one.key != APPLICATIONS) {
            rest.push((one.key.clone(), one.node.flow()));
        }
        let Content::List(apps) = &entry_of(&root, APPLICATIONS).unwrap().node.value else {
            panic!()
        };
        for (i, app) in apps.iter().enumerate() {
            let Content::Map(keys) = &app.value else { panic!() };
            for one in keys {
                match &one.node.value {
                    Content::List(items) if i == 0 && one.key == SIDECARS => {
                        sidecars.extend(items.iter().map(Node::flow));
                    }
                    Content::Scalar { text, .. } if i == 0 && one.key == SIDECARS => {
                        assert!(text.is_empty() || text == "~", "{text}");
                    }
                    _ => rest.push((format!("{i}.{}", one.key), one.node.flow())),
                }
            }
        }
        (rest, sidecars)
    };
    for (name, before, _) in shapes() {
        let added = add_sidecar(&before, 0, &new()).unwrap();
        let ((old, mut had), (kept, mut has)) = (parts(&before), parts(&added));
        assert_eq!(kept, old, "{name}");
        had.push(entry.clone());
        had.sort();
        has.sort();
        assert_eq!(has, had, "{name}");
    }
}

#[test]
fn an_empty_list_is_replaced() {
    let block =
        "  - name: outrider\n    process_types: [web]\n    command: exec ./outrider run\n    memory: 64M\n";
    let flow = "[{ name: outrider, process_types: [web], command: exec ./outrider run, memory: 64M }]";
    for (before, after) in [
        (
            "- name: a\n  sidecars: [] # none\n  b: 1\n",
            format!("- name: a\n  sidecars: # none\n{block}  b: 1\n"),
        ),
        (
            "- name: a\n  sidecars: ~\n",
            format!("- name: a\n  sidecars:\n{block}"),
        ),
        (
            "- name: a\n  sidecars: null",
            format!("- name: a\n  sidecars:\n{block}"),
        ),
        (
            "- name: a\n  sidecars: &none [\n   ]\n",
            format!("- name: a\n  sidecars: &none\n{block}"),
        ),
        (
            "- { name: a, sidecars: [ ] }\n",
            format!("- {{ name: a, sidecars: {flow} }}\n"),
        ),
        (
            "- {name: a, sidecars: null}\n",
            format!("- {{name: a, sidecars: {flow}}}\n"),
        ),
    ] {
        let added = add_sidecar(&format!("applications:\n{before}"), 0, &new());
        assert_eq!(added, Ok(format!("applications:\n{after}")), "{before}");
    }
}

#[test]
fn a_variable_is_added_wherever_the_variables_are_written() {
    let sidecars = "  sidecars:\n  - name: outrider\n    process_types: [web, worker]\n    command: exec ./outrider run\n    memory: 64M\n";
    let variable = "OUTRIDER_PROCESS_TYPES: \"web,worker\"";
    for (before, after) in [
        (
            "- name: a\n",
            format!("- name: a\n{sidecars}  env:\n    {variable}\n"),
        ),
        (
            "- name: a\n  env:\n      A: b # c\n      # d\n  # e\n  memory: 1G\n",
            format!(
                "- name: a\n  env:\n      A: b # c\n      # d\n      {variable}\n  # e\n  memory: 1G\n{sidecars}"
            ),
        ),
        (
            "- name: a\n  env: &own\n    A: b\n",
            format!("- name: a\n  env: &own\n    A: b\n    {variable}\n{sidecars}"),
        ),
        (
            "- name: a\n  env: { A: b }\n",
            format!("- name: a\n  env: {{ {variable}, A: b }}\n{sidecars}"),
        ),
        (
            "- name: a\n  env: {} # none\n",
            format!("- name: a\n  env: # none\n    {variable}\n{sidecars}"),
        ),
        (
            "- name: a\n  env:\n",
            format!("- name: a\n  env:\n    {variable}\n{sidecars}"),
        ),
        (
            "- name: a\n  env:\n    <<: *x\n    A: b\n",
            format!("- name: a\n  env:\n    <<: *x\n    A: b\n    {variable}\n{sidecars}"),
        ),
    ] {
        let head = "x: &x { B: c }\napplications:\n";
        let added = add_sidecar(&format!("{head}{before}"), 0, &with_variable());
        assert_eq!(added, Ok(format!("{head}{after}")), "{before}");
    }
}

/// A manifest is changed rightly or not at all.
#[test]
fn what_cannot_be_changed_alone_is_refused() {
    let mut wrong = Vec::new();
    for text in [
        // Another app has the same keys.
        "applications:\n- &a\n  name: a\n- <<: *a\n  name: b\n",
        "applications:\n- &a { name: a }\n- { <<: *a, name: b }\n",
        "x: &x\n  name: a\napplications:\n- *x\n",
        // A list, or variables, from an anchor.
        "x: &x\n- { name: logs }\napplications:\n- name: a\n  sidecars: *x\n",
        "x: &x [{ name: logs }]\napplications:\n- name: a\n  sidecars: *x\n",
        "x: &x\n  sidecars:\n  - name: logs\napplications:\n- <<: *x\n  name: a\n",
        "x: &x { sidecars: [] }\napplications:\n- <<: *x\n  name: a\n",
        "x: &x []\napplications:\n- name: a\n  sidecars: *x\n",
        // Of another kind.
        "applications:\n- name: a\n  sidecars: none\n",
        "applications:\n- name: a\n  sidecars: ((sidecars))\n",
        "applications:\n- name: a\n  sidecars: {}\n",
        "applications:\n- name: a\n  sidecars: { a: b }\n",
        "applications:\n- a\n",
        "applications: { name: a }\n",
        "applications: []\n",
        "applications: *x\n",
        "name: a\n",
        "[]\n",
        "a\n",
        "",
        // Not where lines can be added.
        "applications:\n- ? name\n  : a\n  ? sidecars\n  :\n",
        "applications:\n- name: a\n  sidecars:\n    &x\n",
        "applications:\n- name: a\n  env: |+\n    x\n\n\n",
        "applications:\n- name: a\n---\napplications:\n- name: b\n",
        "applications:\n\t- name: a\n",
        "applications:\n- name: a\n  sidecars: [ # a comment\n  ]\n",
    ] {
        match add_sidecar(text, 0, &new()) {
            Err(MergeError::Shared) => {}
            other => wrong.push((text, other)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        add_sidecar("applications:\r- name: a\r", 0, &new()),
        Err(MergeError::LineEnds)
    );
    let env = "x: &x { A: b }\napplications:\n- name: a\n  env: *x\n";
    assert_eq!(add_sidecar(env, 0, &with_variable()), Err(MergeError::Shared));
    assert_eq!(
        add_sidecar("applications:\n- name: a\n", 1, &new()),
        Err(MergeError::Shared)
    );
}

/// Any text that is cut out of a manifest is changed rightly, or refused; nothing panics.
#[test]
fn no_piece_of_a_manifest_makes_it_panic() {
    for (_, before, _) in shapes() {
        let ends: Vec<usize> = before.char_indices().map(|(at, _)| at).collect();
        for end in ends.iter().step_by(3) {
            for text in [&before[..*end], &before[*end..]] {
                for app in 0..2 {
                    let _ = add_sidecar(text, app, &with_variable());
                }
            }
        }
    }
}

#[test]
fn the_lines_to_add_by_hand_are_those_of_the_readme() {
    assert_eq!(
        sidecar_lines(&with_variable()),
        "  sidecars:\n  - name: outrider\n    process_types: [web, worker]\n    command: exec ./outrider run\n    memory: 64M\n  \
         env:\n    OUTRIDER_PROCESS_TYPES: \"web,worker\"\n"
    );
    let readme = include_str!("../../../README.md");
    assert!(readme.contains("command: exec ./outrider run\n    memory: 64M\n"));
}
