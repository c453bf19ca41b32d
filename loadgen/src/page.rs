//! The report as one page: `report.html`, which needs no network and no other file.
//!
//! Owns: joining the page's template (`page.html`) with a report's JSON. The page draws its plots itself, from that
//! JSON. Does not know the report's fields.
//!
//! Invariant: nothing in the JSON can end the script element it is written into.

/// The template, with [`PLACE`] where the report goes.
const TEMPLATE: &str = include_str!("page.html");
/// The placeholder of the report in the template.
const PLACE: &str = "\"REPORT\"";

/// The page that shows the report `json`.
pub(crate) fn render(json: &str) -> String {
    // In JSON a `<` occurs inside strings only, where its escape means the same.
    TEMPLATE.replacen(PLACE, &json.replace('<', "\\u003c"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_cannot_leave_its_script() {
        assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
        let page = render(r#"{"spec":"</script><b>"}"#);
        assert!(page.contains(r#"{"spec":"\u003c/script>\u003cb>"}"#));
        assert!(!page.contains(PLACE));
    }

    #[test]
    fn the_page_asks_the_network_for_nothing() {
        let outside = ["src=", "@import", "url(", "fetch(", "<link"];
        assert!(outside.iter().all(|word| !TEMPLATE.contains(word)));
        // The one address is the name of the SVG namespace.
        assert_eq!(TEMPLATE.matches("://").count(), TEMPLATE.matches("http://www.w3.org/2000/svg").count());
    }
}
