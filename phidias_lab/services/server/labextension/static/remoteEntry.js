// The page side of phidias_lab.services.server, written so that JupyterLab loads it as it stands, without a build:
// a container with the two functions that JupyterLab calls, holding one plugin that needs nothing but the application.
(() => {
  const EVERY = 60000;
  const SHOWN = 'phidias-lab:notes';

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
          app.commands.execute('apputils:notify', { message, type, options: { autoClose: false } });
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
