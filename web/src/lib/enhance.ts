/** What finished blocks get besides their text: colours for code, drawn formulas and diagrams. Loaded when needed. */

type Highlighter = typeof import('highlight.js/lib/common').default;
let highlighter: Promise<Highlighter> | undefined;
let katex: Promise<typeof import('katex').default> | undefined;
let mermaid: Promise<typeof import('mermaid').default> | undefined;
let diagrams = 0;
let drawing = Promise.resolve(); // one diagram after another: each sweeps up what mermaid left on the page

export function enhance(node: HTMLElement): void {
  for (const figure of node.querySelectorAll<HTMLElement>('figure.code')) {
    if (figure.dataset['language'] === 'mermaid') drawing = drawing.then(() => drawDiagram(figure));
    else void colour(figure);
  }
  for (const formula of node.querySelectorAll<HTMLElement>('.math:not(.drawn)')) void drawFormula(formula);
}

async function colour(figure: HTMLElement): Promise<void> {
  const language = figure.dataset['language'] ?? '';
  const code = figure.querySelector('code');
  if (!language || !code) return;
  highlighter ??= import('highlight.js/lib/common').then((module) => module.default);
  const hljs = await highlighter;
  if (!hljs.getLanguage(language) || code.classList.contains('hljs')) return;
  code.innerHTML = hljs.highlight(code.textContent ?? '', { language, ignoreIllegals: true }).value;
  code.classList.add('hljs');
}

async function drawFormula(formula: HTMLElement): Promise<void> {
  formula.classList.add('drawn');
  const tex = formula.textContent ?? '';
  katex ??= import('katex').then((module) => module.default);
  const displayMode = formula.classList.contains('display');
  // as MathML, which browsers draw in the system's own fonts and screen readers read: the page ships no fonts
  const bounds = { throwOnError: false, trust: false, maxExpand: 200, maxSize: 20 };
  (await katex).render(tex, formula, { displayMode, output: 'mathml', ...bounds });
}

/** A diagram with its styles in it, as large as it says that it is. */
function whole(svg: string, styles: string): string {
  const drawing = new DOMParser().parseFromString(svg, 'image/svg+xml').documentElement as unknown as SVGSVGElement;
  const { width, height } = drawing.viewBox.baseVal;
  drawing.setAttribute('width', String(width));
  drawing.setAttribute('height', String(height));
  drawing.style.maxWidth = '';
  const escaped = styles.replace(/[&<]/g, (sign) => (sign === '&' ? '&amp;' : '&lt;'));
  return new XMLSerializer().serializeToString(drawing).replace('>', `><style>${escaped}</style>`);
}

/**
 * What mermaid draws, and its styles apart. It puts style elements into the page while it draws, which the page's policy
 * refuses with a complaint each; so it is given others to write into. What they say holds while it draws, as it measures
 * its words then, and comes back to be put into the picture.
 */
async function drawn(draw: () => Promise<{ svg: string }>): Promise<[svg: string, styles: string]> {
  const create = document.createElement;
  const sheet = new CSSStyleSheet();
  let styles = '';
  document.createElement = function (this: Document, name: string, options?: ElementCreationOptions): HTMLElement {
    if (name.toLowerCase() !== 'style') return create.call(this, name, options);
    const stand = document.createElementNS(null, 'defs') as HTMLElement;
    const write = (text: string) => sheet.replaceSync((styles += text));
    return Object.defineProperty(stand, 'innerHTML', { set: write });
  };
  document.adoptedStyleSheets.push(sheet);
  try {
    return [(await draw()).svg, styles];
  } finally {
    document.createElement = create;
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
  }
}

/** As a picture, whose styles stay its own. What is no diagram stays code. Never fails. */
async function drawDiagram(figure: HTMLElement): Promise<void> {
  mermaid ??= import('mermaid').then((module) => module.default);
  const isDark = getComputedStyle(document.documentElement).colorScheme === 'dark';
  try {
    const drawer = await mermaid;
    drawer.initialize({
      startOnLoad: false,
      securityLevel: 'strict',
      theme: isDark ? 'dark' : 'neutral',
      htmlLabels: false,
      flowchart: { htmlLabels: false, useMaxWidth: false },
      gantt: { useWidth: 720 },
      fontFamily: 'system-ui, sans-serif',
    });
    const source = figure.querySelector('code')?.textContent ?? '';
    const [svg, styles] = await drawn(() => drawer.render(`diagram-${++diagrams}`, source));
    const picture = document.createElement('img');
    picture.src = URL.createObjectURL(new Blob([whole(svg, styles)], { type: 'image/svg+xml' }));
    picture.alt = source;
    figure.classList.add('drawn');
    figure.prepend(picture);
  } catch {
    figure.dataset['language'] = 'text';
  } finally {
    document.querySelectorAll('body > [id^="ddiagram-"]').forEach((left) => left.remove());
  }
}
