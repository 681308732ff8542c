//! The equations of the explanations.

use super::*;

/// Equations are set as such, and their symbols lead to the controls, wherever these are.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the built page and Chromium"]
async fn symbols_lead_to_their_controls() {
    let (site, browser) = (site(), Browser::start(Gpu::None).await);
    browser.open(&format!("{}?backend=cpu", site.url)).await;
    ready(&browser, SOON).await;
    let open = "for (const e of document.querySelectorAll('.explain')) e.open = true;";
    browser.run::<()>(open).await;
    let set: bool = browser
        .run(
            "const found = [...document.querySelectorAll('.equation math')];
             return found.length > 4 && found.every((e) =>
                 e.namespaceURI === 'http://www.w3.org/1998/Math/MathML'
                 && e.getBoundingClientRect().height > 10);",
        )
        .await;
    assert!(set, "equations are not shown");
    // Some controls are in a part that is closed at first.
    for (symbol, control) in
        [("N", "steps"), ("σ_max", "sigma-max"), ("ρ", "rho"), ("seed", "seed")]
    {
        // The first that can be seen is to be clicked on.
        let mark = format!(
            "for (const e of document.querySelectorAll('.more')) e.open = false;
             for (const e of document.querySelectorAll('.marked')) e.classList.remove('marked');
             const all = [...document.querySelectorAll(`[data-symbol='{symbol}']`)];
             all.find((e) => e.checkVisibility()).classList.add('marked');"
        );
        browser.run::<()>(&mark).await;
        browser.click(".marked").await;
        let focused = "return document.activeElement.id";
        assert_eq!(browser.run::<String>(focused).await, control, "{symbol}");
        let seen = "return document.activeElement.checkVisibility()";
        assert!(browser.run::<bool>(seen).await, "{symbol}");
    }
    browser.close().await;
}
