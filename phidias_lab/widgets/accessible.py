"""Names for screen readers where the page's controls lack them."""

from __future__ import annotations

import panel as pn


class SpokenNames(pn.custom.JSComponent):
    """Gives every control the name that stands beside it.

    Bokeh draws the caption of sliders, date fields and spin buttons beside the control without saying that they belong
    together, so a screen reader would announce "slider" and nothing else (WCAG 2.1, 4.1.2). Controls live in shadow roots
    that come and go with the page's parts, hence the look every second; it takes a few milliseconds.
    """

    _esm = """
    function nameOf(root) {
      const caption = root.querySelector('label, .bk-slider-title, .bk-input-group > span')
      return caption ? caption.textContent.trim().replace(/:.*$/s, m => m.length > 1 ? m : '') : ''
    }
    function placeOf(handle) {
      const before = handle.getRootNode().host?.previousElementSibling?.shadowRoot
      return before?.querySelector('.bk-clearfix')?.textContent.trim() ?? ''
    }
    function visit(root) {
      for (const element of root.querySelectorAll('*')) {
        if (element.shadowRoot) visit(element.shadowRoot)
        if (!element.matches('input:not([type=hidden]), select, textarea, button, .noUi-handle')) continue
        if (element.matches('.noUi-handle') && !nameOf(root) && placeOf(element)) element.ariaLabel = placeOf(element)
        if (element.ariaLabel || element.labels?.length || element.textContent.trim()) continue
        const name = nameOf(root)
        if (!name) continue
        const spin = element.matches('[class*=up]') ? ', more' : element.matches('[class*=down]') ? ', less' : ''
        element.setAttribute('aria-label', name + (element.matches('button') ? spin : ''))
      }
    }
    export function render({model}) {
      const clock = setInterval(() => visit(document), 1000)
      model.on('remove', () => clearInterval(clock))
      visit(document)
      const nothing = document.createElement('span')
      nothing.hidden = true
      return nothing
    }
    """
