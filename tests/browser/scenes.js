'use strict';
// What people do: claim the box, give it files, watch, look after their shares.

const assert = require('node:assert');

const row = (window, name) => window.locator('.shares li', { hasText: name });

const scenes = {
  async claim(stage) {
    const window = await stage.visitor();
    stage.expects(403);
    stage.expects(429);
    assert.strictEqual(await window.locator('input[type=file]').count(), 0, 'a visitor may add nothing');
    await window.click('text=Sign in');
    const attempt = async secret => {
      await window.fill('#secret', secret);
      const answer = window.waitForResponse(answer => answer.request().method() === 'POST');
      await window.click('main button');
      return (await answer).status();
    };
    const alert = () => window.textContent('[role=alert]');
    for (let guess = 0; guess < 3; guess++) {
      assert.strictEqual(await attempt('0'.repeat(32)), 403, `guess ${guess}`);
      assert.match(await alert(), /not the secret of this box/);
    }
    assert.strictEqual(await attempt(stage.secret), 429, 'after three guesses even the right one has to wait');
    assert.match(await alert(), /too many wrong secrets.*try again in/);
    await stage.until('a secret is heard again', async () => (await attempt(stage.secret)) === 303);
    await window.waitForSelector('input[type=file]', { state: 'attached' });
    assert.strictEqual(window.url(), stage.page, 'whoever has claimed the box sees its shares');
    await window.click('text=Sign out');
    await window.waitForSelector('text=Sign in');
    assert.strictEqual(await window.locator('input[type=file]').count(), 0, 'who has signed out is a visitor');
  },

  async link(stage) {
    const window = await stage.visitor();
    await window.goto(`${stage.page}claim#${stage.secret}`);
    await window.waitForFunction(secret => document.querySelector('#secret').value === secret, stage.secret);
    assert.strictEqual(window.url(), stage.page + 'claim', 'the secret does not stay in the address');
    await window.fill('#device', 'the phone in the kitchen');
    await window.click('main button');
    await window.waitForSelector('text=Sign out');
    await window.click('nav >> text=Box');
    await window.waitForSelector('text=the phone in the kitchen');
  },

  async drop(stage) {
    const window = await stage.owner();
    const name = 'Letter to the neighbours.txt';
    await window.evaluate(() => { window.isTheSame = true; });
    await window.setInputFiles('input[type=file]', stage.more.file);
    await row(window, name).waitFor();
    assert.match(await row(window, name).textContent(), /70 kB/);
    stage.expects(409);
    await window.setInputFiles('input[type=file]', stage.more.file);
    await window.waitForSelector('.uploads .failed >> text=there is a file of this name already');
    assert.match(await window.textContent('#said'), /there is a file of this name already/);
    await window.evaluate(() => {
      const data = new DataTransfer();
      data.items.add(new File(['hello'], 'Dropped.txt'));
      const event = name => new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: data });
      document.body.dispatchEvent(event('dragover'));
      if (!document.body.matches('.dragging')) throw new Error('it does not show where to drop');
      document.body.dispatchEvent(event('drop'));
    });
    await row(window, 'Dropped.txt').waitFor();
    assert.ok(await window.evaluate(() => window.isTheSame), 'nothing was loaded anew');
    await row(window, 'Dropped.txt').getByRole('link').click();
    const download = await window.getByRole('link', { name: 'Download' }).getAttribute('href');
    const got = await window.request.get(new URL(download, stage.page).href);
    assert.strictEqual(await got.text(), 'hello', 'what was dropped is what is downloaded');
  },

  async film(stage) {
    const window = await stage.owner();
    await window.fill('#link', stage.more.link);
    await window.getByRole('button', { name: 'Fetch' }).click();
    const name = 'Garden in spring.webm';
    await row(window, name).getByRole('link').click();
    await window.waitForSelector('video');
    await window.click('[data-play]');
    const time = () => window.$eval('video', film => film.error ? film.error.message : film.currentTime);
    await stage.until('it plays', async () => (await time()) > 0.3);
    const start = Date.now();
    await window.$eval('video', film => { film.currentTime = 45; });
    await stage.until('it plays on from there', async () => (await time()) > 45.3, 20_000);
    const { state, here_bytes, wanted_bytes } = await stage.known(window, name);
    assert.strictEqual(state, 'fetching', `it was all there after ${Date.now() - start} ms`);
    assert.ok(here_bytes < wanted_bytes * 0.75, `${here_bytes} of ${wanted_bytes}: the seek went ahead of the rest`);
    const percent = await window.textContent('[data-live=percent]');
    await stage.until('its page counts on', async () => percent !== await window.textContent('[data-live=percent]'));
  },

  async list(stage) {
    const window = await stage.owner();
    const names = () => window.locator('.shares h3').allTextContents();
    assert.strictEqual((await names()).length, 5, `${await names()}`);
    await window.evaluate(() => { window.isTheSame = true; });
    await window.locator('#q').pressSequentially('notes');
    await stage.until('only one is found', async () => `${await names()}` === 'Notes.txt');
    assert.strictEqual(await window.textContent('#said'), 'One has that in its name');
    assert.strictEqual(await window.evaluate(() => document.activeElement.id), 'q', 'one can go on typing');
    await window.fill('#q', 'nothing of the kind');
    await window.waitForSelector('text=Nothing has that in its name');
    await window.fill('#q', '');
    await stage.until('all are back', async () => (await names()).length === 5);

    const notes = row(window, 'Notes.txt');
    await notes.getByRole('button', { name: 'Pause' }).click();
    await notes.getByRole('button', { name: 'Resume' }).waitFor();
    assert.strictEqual(await notes.locator('.state').textContent(), 'paused');
    assert.strictEqual((await stage.known(window, 'Notes.txt')).state, 'paused');
    await notes.getByRole('button', { name: 'Resume' }).click();
    await notes.getByRole('button', { name: 'Pause' }).waitFor();
    assert.notStrictEqual((await stage.known(window, 'Notes.txt')).state, 'paused');
    assert.ok(await window.evaluate(() => window.isTheSame), 'nothing was loaded anew');

    await notes.getByRole('link').click();
    const remove = window.getByRole('button', { name: 'Remove it' });
    assert.ok(!await remove.isVisible(), 'it is not removed by one press');
    await window.click('summary >> text=Remove');
    assert.ok(!await window.getByRole('checkbox').isChecked(), 'files stay unless somebody says otherwise');
    await remove.click();
    await window.waitForURL(stage.page);
    assert.ok(!(await names()).includes('Notes.txt'), 'it is gone from the list');
  },

  async live(stage) {
    const window = await stage.visitor();
    await window.evaluate(() => { window.isTheSame = true; });
    const seen = what => window.textContent(`[data-live=${what}]`);
    await stage.until('it says how fast it sends', async () => /^[1-9]\d* kB\/s$/.test(await seen('up_rate')));
    await stage.until('it says how many are connected', async () => await seen('people') === '1 person');
    const film = row(window, 'Garden in spring.webm');
    const sent = () => film.locator('[data-live=sent_bytes]').textContent();
    const before = await sent();
    await stage.until('more is sent', async () => await sent() !== before);
    const top = () => window.$eval('#graph .up', line => Math.min(...Array.from(line.points, point => point.y)));
    await stage.until('it grows', async () => await top() < 69);
    process.kill(stage.more.friend, 'SIGTERM');
    await film.locator('text=nobody connected').waitFor();
    await film.locator('text=resting').waitFor();
    assert.ok(await window.evaluate(() => window.isTheSame), 'nothing was loaded anew');
  },
};

module.exports = scenes;
