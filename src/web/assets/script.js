'use strict';
// The pages work without this. It adds live figures, a filter, uploads and copy buttons.

const one = (what, root = document) => root.querySelector(what);
const all = (what, root = document) => root.querySelectorAll(what);
const on = (what, act, to = window) => to.addEventListener(what, act);
const say = text => { one('#said').textContent = text; };
const reveal = root => all('[data-js]', root).forEach(e => { e.hidden = false; });
reveal(document);

// Figures, written as the box writes them.
const size = n => {
  let i = 0;
  for (; n >= 999.5 && i < 5; i++) n /= 1000;
  return (i && n < 9.95 ? n.toFixed(1) : Math.round(n)) + ' ' + ['B', 'kB', 'MB', 'GB', 'TB', 'PB'][i];
};
const word = (key, v) =>
  key === 'people' ? (v ? v + (v > 1 ? ' people' : ' person') : 'nobody') :
  key === 'percent' ? v + ' %' :
  /^(resident|contract)_/.test(key) ? (v / 1048576).toFixed(1) + ' MiB' :
  /_rate$/.test(key) ? size(v) + '/s' :
  /bytes$/.test(key) ? size(v) : v.toLocaleString('en');
const paint = (root, now) => all('[data-live]', root).forEach(e => {
  const key = e.dataset.live;
  if (!(key in now) || (root === document && e.closest('[data-hash]'))) return;
  if ('value' in e) e.value = now[key]; else e.textContent = word(key, now[key]);
});

// Sent grows above the ground, fetched below it: three minutes, kept from page to page.
const graph = one('#graph');
let past = [];
try { past = JSON.parse(sessionStorage.past).filter(p => p[2] > Date.now() - 18e4); } catch { /* anew */ }
const grow = (up, down) => {
  past = [...past, [up, down, Date.now()]].slice(-90);
  try { sessionStorage.past = JSON.stringify(past); } catch { /* not kept */ }
  const top = Math.max(1e5, ...past.map(p => Math.max(p[0], p[1])));
  const step = 310 / Math.max(29, past.length - 1), left = 305 - step * (past.length - 1);
  if (graph) ['.up', '.down'].forEach((line, n) => one(line, graph).setAttribute('points', `${left},70 ` +
    past.map((p, i) => `${left + step * i},${70 + Math.sqrt(p[n] / top) * [-66, 28][n]} `).join('') + '305,70'));
};

// Parts of the page are fetched anew, but not where somebody is at work.
let asked, later;
const refresh = async () => {
  asked?.abort();
  asked = new AbortController();
  try {
    const answer = await fetch(location.href, { signal: asked.signal });
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    all('[data-part]').forEach(part => {
      const fresh = answer.ok && page.getElementById(part.id);
      if (!fresh) return;
      if (part.contains(document.activeElement)) return soon();
      part.replaceWith(fresh);
      reveal(fresh);
    });
  } catch { /* asked again later */ }
};
const soon = () => { later ||= setTimeout(() => { later = 0; refresh(); }, 3000); };

// Live, while somebody looks.
let air, again, wait = 2000, shares;
const hush = () => { clearTimeout(again); air?.close(); air = null; };
const lost = yes => all('.stale').forEach(e => { e.hidden = !yes; });
const listen = () => {
  if (air || document.hidden || !one('[data-live]')) return;
  air = new EventSource('/api/v1/events');
  air.onopen = () => { wait = 2000; lost(false); };
  air.onerror = () => { hush(); lost(wait > 2000); again = setTimeout(listen, wait); wait = Math.min(2 * wait, 6e4); };
  on('pulse', e => {
    const now = JSON.parse(e.data);
    paint(document, { ...now, people: now.peers });
    grow(now.up_rate, now.down_rate);
    if (shares >= 0 && shares !== now.torrents) soon();
    shares = now.torrents;
  }, air);
  on('torrent', e => {
    const now = JSON.parse(e.data), percent = Math.floor(100 * now.here_bytes / (now.bytes || 1));
    all(`[data-hash="${now.info_hash}"]`).forEach(root => {
      paint(root, { ...now, percent, people: now.peers });
      // Somebody has told what is in it: now it has a player, files and ways to get them.
      if (now.bytes && root.id === 'main' && !one('#ways-head')) location.reload();
      if (root.dataset.state !== now.state) { root.dataset.state = now.state; soon(); }
    });
  }, air);
};
listen();
on('visibilitychange', () => { hush(); listen(); if (air) soon(); }, document);

const seek = one('.find input');
let typed;
if (seek) on('input', () => {
  clearTimeout(typed);
  typed = setTimeout(async () => {
    history.replaceState(0, '', '/' + (seek.value && '?q=' + encodeURIComponent(seek.value)));
    await refresh();
    say(one('#shares h2').textContent);
  }, 250);
}, seek);

// Uploads, one by one, in slices; what was cut off goes on where it was.
const drop = one('.drop'), headers = { 'X-Token': one('meta[name=token]')?.content }, slice = 8 << 20;
let turn = Promise.resolve(), under = 0;
const put = async (file, show) => {
  const url = `/upload/${encodeURIComponent(file.name)}?of=${file.size}&tag=${file.lastModified}`;
  for (let tries = 0; tries < 7; tries++) {
    try {
      const known = await fetch(url, { method: 'HEAD', headers });
      let at = known.ok ? +known.headers.get('X-Have') : 0;
      do {
        const body = await file.slice(at, at + slice).arrayBuffer().catch(() => 0);
        if (!body) return show('Cannot be read. Drop files, not folders.', true);
        const answer = await fetch(`${url}&at=${at}`, { method: 'PUT', headers, body });
        if (![502, 503, 504].includes(answer.status) && !answer.ok) return show(await answer.text(), true);
        if (!answer.ok) throw answer;
        at += body.byteLength;
        tries = 0;
        show(`${size(at)} of ${size(file.size)}`, false, at);
      } while (at < file.size);
      soon();
      return show('On the box. It is in the list in a moment.', false, -1);
    } catch {
      show('No answer. Trying again.');
      await new Promise(done => setTimeout(done, 1000 * 2 ** tries));
    }
  }
  show('Stopped. Drop it again, and it goes on where it was.', true);
};
const upload = files => [...files].forEach(file => {
  const [item, name, bar, note] = ['li', 'b', 'progress', 'span'].map(e => document.createElement(e));
  name.textContent = bar.ariaLabel = file.name;
  bar.max = file.size || 1;
  bar.value = 0;
  note.textContent = 'Waits for its turn';
  item.append(name, bar, note);
  one('.uploads').append(item);
  under++;
  turn = turn.then(() => put(file, (text, failed, at) => {
    note.textContent = text;
    if (at >= 0) bar.value = at; else say(`${file.name}: ${text}`);
    if (failed) item.className = 'failed'; else if (at < 0) setTimeout(() => item.remove(), 9000);
  })).then(() => under--);
});
if (drop) {
  const over = (e, yes) => {
    if (!e.dataTransfer.types.includes('Files')) return;
    e.preventDefault();
    document.body.classList.toggle('dragging', yes);
  };
  on('change', e => { upload(e.target.files); e.target.value = ''; }, drop);
  on('dragover', e => over(e, true));
  on('dragleave', e => over(e, !!e.relatedTarget));
  on('drop', e => { over(e, false); upload(e.dataTransfer.files); });
  on('beforeunload', e => { if (under) e.preventDefault(); });
}

on('click', async e => {
  const button = e.target.closest('[data-copy]');
  if (e.target.closest('[data-play]')) one('#player').play();
  if (!button || button.textContent === 'Copied') return;
  const was = button.textContent;
  try { await navigator.clipboard.writeText(button.dataset.copy); } catch { // plain http
    const area = document.createElement('textarea');
    area.value = button.dataset.copy;
    button.after(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.textContent = 'Copied';
  say('Copied');
  setTimeout(() => { button.textContent = was; }, 2000);
});

// Pause and resume without a new page.
on('submit', async e => {
  const form = e.target;
  if (!form.matches('[data-quiet]')) return;
  const { hash } = form.closest('[data-hash]').dataset;
  e.preventDefault();
  const body = new URLSearchParams(new FormData(form));
  const answer = await fetch(form.action, { method: 'POST', body }).catch(() => 0);
  if (!answer.ok) return form.submit();
  document.activeElement.blur();
  await refresh();
  one(`[data-hash="${hash}"] button`)?.focus();
});

// An update, in one piece.
on('submit', async e => {
  const form = e.target;
  if (!form.matches('[data-update]')) return;
  e.preventDefault();
  const note = one('[role=status]', form), button = one('button', form), [body] = one('input', form).files;
  button.disabled = true;
  note.textContent = `Writing ${body.name}. This takes a minute or two.`;
  try {
    note.textContent = await (await fetch('/api/v1/update', { method: 'POST', headers, body })).text();
  } catch { note.textContent = 'No answer. Load the page anew and see which version it is.'; }
  button.disabled = false;
});

// What cannot be played; "try again in 8 seconds".
const film = one('#player'), sad = () => { one('.cannot').hidden = !film.error; };
if (film) { on('error', sad, film); sad(); }
all('[data-count]').forEach(e => setInterval(() => { e.textContent -= e.textContent > 0; }, 1000));

// The box's own link brings its secret behind the #, so that it goes no further than this browser.
const secret = one('#secret');
if (secret && location.hash.length > 1) {
  secret.value = location.hash.slice(1);
  history.replaceState(null, '', '/claim');
}
