import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

/** KaTeX names every font in three formats; all browsers that can show this page read the first. */
const oneFontFormat = {
  name: 'one-font-format',
  enforce: 'pre' as const,
  transform(code: string, id: string) {
    if (!id.includes('katex') || !/\.css/.test(id)) return;
    return code.replace(/,url\([^)]*\.(?:woff|ttf)\) format\("(?:woff|truetype)"\)/g, '');
  },
};

export default defineConfig({
  plugins: [oneFontFormat, svelte()],
  build: {
    outDir: '../clearseek/serve/static',
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 4000,
    target: 'es2023',
  },
  server: { proxy: { '/api': 'http://127.0.0.1:8000' } },
  test: { environment: 'node' },
});
