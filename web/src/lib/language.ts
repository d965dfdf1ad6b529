/** Which language a text is in, by its letters: screen readers and fonts need to know. */

export type Language = 'en' | 'ko' | 'zh';
export const LANGUAGES: readonly Language[] = ['en', 'ko', 'zh'];

const SCRIPTS: [string, RegExp][] = [
  ['ko', /\p{Script=Hangul}/gu],
  ['ja', /[\p{Script=Hiragana}\p{Script=Katakana}]/gu],
  ['zh', /\p{Script=Han}/gu],
  ['en', /\p{Script=Latin}/gu],
];
const LOOKED_AT = 600; // characters; a text's language shows early

/** The tag for a text's `lang`; undefined where no letter says. */
export function languageOf(text: string): string | undefined {
  const seen = text.slice(0, LOOKED_AT).replace(/```[\s\S]*?(```|$)/g, '');
  const counts = new Map(SCRIPTS.map(([tag, letters]) => [tag, seen.match(letters)?.length ?? 0]));
  if (counts.get('ja')! > 0 && counts.get('ja')! * 4 > counts.get('zh')!) return 'ja';
  // a syllable or a character says about as much as three letters, and names stay Latin in any language
  const best = [...counts].map(([tag, n]) => [tag, tag === 'en' ? n / 4 : n] as const).sort((a, b) => b[1] - a[1])[0]!;
  return best[1] > 0 ? (best[0] === 'zh' ? 'zh-Hans' : best[0]) : undefined;
}

/** The first of what a browser asks for that the page speaks. */
export function preferred(asked: readonly string[]): Language {
  for (const tag of asked) {
    const found = LANGUAGES.find((one) => tag.toLowerCase().split('-')[0] === one);
    if (found) return found;
  }
  return 'en';
}
