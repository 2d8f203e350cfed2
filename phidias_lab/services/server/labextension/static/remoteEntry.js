// The page side of phidias_lab.services.server, written so that JupyterLab loads it as it stands, without a build:
// a container with the two functions that JupyterLab calls, holding one plugin that needs nothing but the application.
(() => {
  const EVERY = 60000;
  const SHOWN = 'phidias-lab:notes';
  const READ = 'phidias-lab:read-notice';
  const WHOLE = 140; // JupyterLab cuts a notification after so many characters

  const read = message => {
    const box = document.body.appendChild(document.createElement('dialog'));
    box.className = 'phidias-notice';
    Object.assign(box.style, {
      maxWidth: '40em', padding: '1.2em', overflowWrap: 'anywhere', fontFamily: 'var(--jp-ui-font-family)',
      color: 'var(--jp-ui-font-color1)', background: 'var(--jp-layout-color1)', border: '1px solid var(--jp-border-color1)'
    });
    box.appendChild(document.createElement('p')).textContent = message;
    const close = box.appendChild(document.createElement('button'));
    close.className = 'jp-mod-styled jp-mod-accept';
    close.textContent = 'Close';
    close.addEventListener('click', () => box.close());
    box.addEventListener('close', () => box.remove());
    box.showModal();
  };

  const plugin = {
    id: 'phidias-lab:notices',
    description: 'Tells when this server will end, and what its start did with the notebooks of the workspace.',
    autoStart: true,
    activate: app => {
      const settings = app.serviceManager.serverSettings;
      const told = new Set();
      // What a start of the server did is told once in a browser, however often the page is loaded.
      try {
        for (const id of JSON.parse(localStorage.getItem(SHOWN) || '[]')) { told.add(id); }
      } catch (error) {
        // no storage in this browser: it is told again
      }
      app.commands.addCommand(READ, { label: 'Read a notice in full', execute: args => read(`${args.message}`) });
      let touched = Date.now();
      for (const event of ['keydown', 'pointerdown', 'wheel']) {
        window.addEventListener(event, () => { touched = Date.now(); }, { capture: true, passive: true });
      }
      const ask = async () => {
        const idle = Math.max(0, (Date.now() - touched) / 1000);
        const headers = settings.token ? { Authorization: `token ${settings.token}` } : {};
        let answer;
        try {
          const reply = await fetch(`${settings.baseUrl}phidias-lab/notices?idle=${idle}`, {
            headers, credentials: 'same-origin', cache: 'no-store'
          });
          if (!reply.ok) { return; }
          answer = await reply.json();
        } catch (error) {
          return; // the server is away; JupyterLab says so itself
        }
        for (const { id, type, message } of answer.notices) {
          if (told.has(id)) { continue; }
          told.add(id);
          const all = { label: 'Read all', caption: message, commandId: READ, args: { message } };
          const actions = message.length > WHOLE ? [all] : [];
          app.commands.execute('apputils:notify', { message, type, options: { autoClose: false, actions } });
        }
        try {
          localStorage.setItem(SHOWN, JSON.stringify([...told].filter(id => id.startsWith('note-')).slice(-100)));
        } catch (error) {
          // as above
        }
        for (const id of [...told]) {
          // used again: an idle warning that is over may be said anew another time
          if (id.startsWith('idle-') && !answer.notices.some(notice => notice.id.startsWith('idle-'))) { told.delete(id); }
        }
      };
      app.restored.then(ask);
      setInterval(ask, EVERY);
    }
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['phidias-lab'] = {
    init: () => undefined,
    get: module => module === './extension'
      ? Promise.resolve(() => ({ __esModule: true, default: plugin }))
      : Promise.reject(new Error(`phidias-lab has no module ${module}`))
  };
})();
