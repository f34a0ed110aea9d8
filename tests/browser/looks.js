'use strict';
// How it looks and whether everybody can use it: widths and schemes, axe, the keyboard, no scripts.

const assert = require('node:assert');
const fs = require('node:fs');

const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

// Every page there is, as this window may see it.
const pages = async window => {
  const links = await window.locator('.shares h3 a').evaluateAll(all => all.map(a => a.getAttribute('href')));
  assert.strictEqual(links.length, 5, 'a share of every kind');
  return ['/', '/?q=nothing', '/box', '/claim', ...links];
};

const inspect = async (window, what) => {
  const wide = await window.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const reaches = element => element.getBoundingClientRect().right > width + 1;
    return [...document.querySelectorAll('body *')].filter(reaches).map(element => element.outerHTML.slice(0, 90));
  });
  assert.deepStrictEqual(wide, [], `${what} is wider than its window`);
  await window.evaluate(axe);
  const rules = { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'], resultTypes: ['violations'] };
  const { violations } = await window.evaluate(rules => window.axe.run(document, rules), rules);
  const found = violations.flatMap(({ id, nodes }) => nodes.map(node => `${id}: ${node.failureSummary} ${node.html}`));
  assert.deepStrictEqual(found, [], `${what} is not for everybody`);
};

const looks = {
  async looks(stage) {
    for (const whose of ['visitor', 'owner']) {
      const window = await stage[whose]({ reducedMotion: 'reduce' });
      for (const page of await pages(window)) {
        await window.setViewportSize(stage.DESK);
        await window.goto(new URL(page, stage.page).href);
        for (const colorScheme of ['light', 'dark']) {
          await window.emulateMedia({ colorScheme });
          for (const [name, size] of [['desk', stage.DESK], ['phone', stage.PHONE]]) {
            await window.setViewportSize(size);
            const what = `${page} as ${whose}, ${colorScheme}, ${name}`;
            if (process.env.PERENNIAL_PICTURES) {
              const path = `${process.env.PERENNIAL_PICTURES}/${what.replace(/[^a-z0-9?=]+/g, '-')}.png`;
              await window.screenshot({ path, fullPage: true });
            }
            await inspect(window, what);
          }
        }
      }
      await window.context().close();
    }
  },

  async keyboard(stage) {
    const window = await stage.owner();
    await window.goto(stage.page);
    const passed = [];
    const tabTo = async words => {
      for (let steps = 0; steps < 40; steps++) {
        await window.keyboard.press('Tab');
        const at = await window.evaluate(() => {
          const { id, textContent, type } = document.activeElement;
          return [id, textContent.trim(), type].filter(Boolean).join(' ');
        });
        passed.push(at);
        if (at.includes(words)) return;
      }
      assert.fail(`Tab does not reach ${words}: ${passed.join(' > ')}`);
    };
    await tabTo('Skip to the content');
    await window.keyboard.press('Enter');
    await tabTo('link');
    await window.keyboard.type('no link at all');
    stage.expects(422);
    await window.keyboard.press('Enter');
    await window.waitForSelector('text=neither a magnet link nor the address of a .torrent');
    await window.goBack();
    await tabTo('file');
    await tabTo('q ');
    await tabTo('Pause Notes.txt');
    const outline = await window.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.strictEqual(outline, 'solid', 'one sees where one is');
    await window.keyboard.press('Enter');
    await window.waitForSelector('text=Resume Notes.txt');
    const focused = () => window.evaluate(() => document.activeElement.textContent);
    await stage.until('one is where one was', async () => await focused() === 'Resume Notes.txt');
    await window.keyboard.press('Enter');
    await window.waitForSelector('text=Pause Notes.txt');
  },

  async plain(stage) {
    const window = await stage.owner({ javaScriptEnabled: false });
    const names = () => window.locator('.shares h3').allTextContents();
    await window.fill('#q', 'notes');
    await window.getByRole('button', { name: 'Find' }).click();
    assert.strictEqual(`${await names()}`, 'Notes.txt');
    await window.getByRole('button', { name: 'Pause' }).click();
    await window.waitForURL(stage.page);
    await window.getByRole('button', { name: 'Resume Notes.txt' }).waitFor();
    const link = stage.more.link.replace('0011', '1100').replace('Nobody', 'Somebody');
    await window.fill('#link', link);
    await window.getByRole('button', { name: 'Fetch' }).click();
    await window.waitForURL(stage.page);
    assert.ok((await names()).includes('Somebody has this'), `${await names()}`);
    assert.ok(!await window.locator('.drop').isVisible(), 'what needs a script is not shown');
    await window.click('text=Notes.txt');
    assert.ok(!await window.locator('[data-copy]').first().isVisible(), 'what needs a script is not shown');
  },

  async picture(stage) {
    const window = await stage.owner({ viewport: { width: 1100, height: 1340 } });
    await window.waitForTimeout(58_000);
    await window.screenshot({ path: stage.more.into });
  },
};

module.exports = looks;
