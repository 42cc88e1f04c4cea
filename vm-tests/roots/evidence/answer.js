exports.answer = 'node answers\n';
