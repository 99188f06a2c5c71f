// What fetch-event-source asks of a page, for Node: a window, and a document that stays visible.
globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
