/** The page's words in the reader's language, and the choices of appearance that the browser remembers. */

import { preferred, type Language } from './language';
import { en, type Words } from './words/en';
import { ko } from './words/ko';
import { zh } from './words/zh';

export type Theme = 'system' | 'light' | 'dark';
const CATALOGS: Record<Language, Words> = { en, ko, zh };
const TAGS: Record<Language, string> = { en: 'en', ko: 'ko', zh: 'zh-Hans' };

const DARK = matchMedia('(prefers-color-scheme: dark)');

class Looks {
  language = $state<Language>((localStorage.getItem('language') as Language) ?? preferred(navigator.languages));
  theme = $state<Theme>((localStorage.getItem('theme') as Theme) ?? 'system');

  constructor() {
    this.apply();
    DARK.addEventListener('change', () => this.apply());
  }

  setLanguage(language: Language): void {
    this.language = language;
    localStorage.setItem('language', language);
    this.apply();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    localStorage.setItem('theme', theme);
    this.apply();
  }

  private apply(): void {
    document.documentElement.lang = TAGS[this.language];
    const isDark = this.theme === 'dark' || (this.theme === 'system' && DARK.matches);
    document.documentElement.dataset['theme'] = isDark ? 'dark' : 'light';
  }
}

export const looks = new Looks();

/** A phrase in the reader's language; {name} is replaced by `values.name`. */
export function t(name: keyof Words, values: Record<string, string | number> = {}): string {
  return CATALOGS[looks.language][name].replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ''));
}

/** A number as the reader writes it. */
export function number(value: number, digits = 0): string {
  return value.toLocaleString(looks.language, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** A duration. */
export function duration(seconds: number): string {
  if (seconds < 10) return t('seconds', { n: number(seconds, 1) });
  const whole = Math.round(seconds);
  if (whole < 60) return t('seconds', { n: whole });
  return t('minutes', { m: Math.floor(whole / 60), s: whole % 60 });
}
