/** Puts text into the clipboard; browsers hide it where a page comes over plain HTTP from another machine. */
export async function copy(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const held = document.createElement('textarea');
  held.value = text;
  const focused = document.activeElement as HTMLElement | null;
  (document.querySelector('dialog[open]') ?? document.body).append(held);
  held.select();
  document.execCommand('copy');
  held.remove();
  focused?.focus();
}
