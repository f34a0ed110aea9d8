'use strict';
// Plays one scene in a browser: node page.js SCENE '{"page", "secret", "more"}'
//
// A scene gets a stage and throws when something is not as it should be. The stage keeps watch over
// every window: errors on the console, breaches of the content security policy and requests to any
// other host fail the scene, unless it has said that a refusal is expected.

const { chromium } = require('playwright-core');
const assert = require('node:assert');
const scenes = { ...require('./scenes.js'), ...require('./looks.js') };

class Stage {
  constructor(browser, told) {
    this.browser = browser;
    Object.assign(this, told);
    this.origin = new URL(told.page).origin;
    this.complaints = [];
    this.refusals = [];
  }

  // A browser of its own: a visitor's, until it has claimed the box.
  async visitor(options = {}) {
    const context = await this.browser.newContext({ viewport: DESK, ...options });
    context.setDefaultTimeout(PATIENCE);
    context.on('console', message => this.heard(message));
    context.on('weberror', error => this.complaints.push(`uncaught: ${error.error()}`));
    context.on('request', request => {
      if (new URL(request.url()).origin !== this.origin) this.complaints.push(`asks ${request.url()}`);
    });
    const window = await context.newPage();
    await window.goto(this.page);
    return window;
  }

  // The same once it has claimed the box.
  async owner(options = {}) {
    const window = await this.visitor(options);
    await window.goto(this.page + 'claim');
    await window.fill('#secret', this.secret);
    await window.click('main button');
    await window.waitForSelector('text=Sign out');
    return window;
  }

  // A status that the browser will complain of is what the scene is about.
  expects(status) {
    this.refusals.push(status);
  }

  heard(message) {
    if (!['error', 'warning'].includes(message.type())) return;
    const status = /responded with a status of (\d+)/.exec(message.text());
    if (status && this.refusals.includes(+status[1])) return;
    this.complaints.push(`${message.type()} on the console: ${message.text()}`);
  }

  // What is known of a share of that name, as programs are told.
  async known(window, name) {
    const list = await window.request.get(this.page + 'api/v1/torrents');
    const text = await list.text();
    assert.ok(list.ok(), `the list: ${list.status()} ${text}`);
    return JSON.parse(text).torrents?.find(torrent => torrent.name === name);
  }
}

// Waits until something is so. What is thrown or false meanwhile is what it says when it gives up.
const until = async (what, probe, patience = PATIENCE) => {
  const end = Date.now() + patience;
  for (let seen; ; await new Promise(later => setTimeout(later, 50))) {
    try {
      if (seen = await probe()) return seen;
    } catch (error) {
      seen = error;
    }
    if (Date.now() > end) throw new Error(`waited in vain until ${what}: ${seen}`);
  }
};

const play = async () => {
  const [name, told] = process.argv.slice(2);
  const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
  const executablePath = '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args, headless: true });
  const stage = new Stage(browser, JSON.parse(told));
  try {
    await scenes[name](stage);
  } finally {
    await browser.close();
    if (stage.complaints.length) console.error(stage.complaints.join('\n'));
  }
  assert.strictEqual(stage.complaints.length, 0, 'the browser complains');
};

const PATIENCE = 10_000;
const DESK = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };
Object.assign(Stage.prototype, { until, DESK, PHONE });

setTimeout(() => { console.error('the scene does not end'); process.exit(1); }, 90_000).unref();
play().catch(error => { console.error(error); process.exitCode = 1; });
